import json
from pathlib import Path

import pytest
import torch

from models.card import ModelCard
from models.plan import plan
from models.samplers.settings import bare
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from models.training.distillation.flows import MADE, SAMPLER, Flows, FlowSettings, FlowsStopped, Maker

SETTINGS = FlowSettings(count=150, levels=6, seed=3, execution="eager float32")  # more than are made together
CHOICES = [f"{mode} {dtype}" for mode in ("eager", "channels_last") for dtype in ("float32", "bfloat16")]


def maker(store: ModelStore, directory: Path, settings: FlowSettings = SETTINGS, untold: float = 0.0) -> Maker:
    card = store.card("plane")
    return Maker(ScoreModel.load(store, card), card, settings, untold, directory)


def ignore(_made: int) -> None:
    pass


@pytest.fixture(scope="module")
def flows(plane: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Flows:
    return maker(plane, tmp_path_factory.mktemp("flows")).make(ignore)


def test_they_end_where_the_teachers_sampler_does(plane: ModelStore, flows: Flows) -> None:
    card = plane.card("plane")
    _, table = plan(bare(SAMPLER).model_copy(update={"levels": 6}), card)
    images = sample(ScoreModel.load(plane, card), table, count=150, seed=3)
    apart = flows.ends.permute(0, 2, 3, 1).int() - torch.from_numpy(images).int()
    assert apart.abs().max() == 0


def test_from_each_level_the_teacher_takes_a_flow_to_the_next(plane: ModelStore, flows: Flows) -> None:
    model = ScoreModel.load(plane, plane.card("plane"))
    assert flows.sigmas[0] == pytest.approx(4.0)
    assert min(flows.sigmas) > 0.011
    assert len(flows.sigmas) == 5  # of 6: at the smallest a consistency model changes nothing

    def state(level: int) -> torch.Tensor:
        noise = flows.noise(torch.arange(150), torch.full((150,), level))
        return flows.ends.float() / 255 + flows.sigmas[level] * noise

    first, second = flows.sigmas[:2]
    euler = state(0) + (second - first) * -first * model.score(state(0), first)
    assert torch.allclose(euler, state(1), atol=0.02 * first)  # of noise kept in 16 bits, and a teacher in as few


def test_stopped_they_go_on_to_the_very_same(plane: ModelStore, flows: Flows, tmp_path: Path) -> None:
    asked = iter((False, True))
    with pytest.raises(FlowsStopped, match="stopped after 64 of 150 flows"):
        maker(plane, tmp_path).make(ignore, lambda: next(asked))
    made: list[int] = []
    again = maker(plane, tmp_path).make(made.append)
    assert made == [128, 150]
    assert torch.equal(again.ends, flows.ends)
    assert (again.noises == flows.noises).all()


def test_how_the_teacher_is_run_is_measured_once(plane: ModelStore, tmp_path: Path) -> None:
    asked = iter((False, True))
    measured = SETTINGS.model_copy(update={"execution": None})
    with pytest.raises(FlowsStopped):
        maker(plane, tmp_path, measured).make(ignore, lambda: next(asked))
    path = tmp_path / MADE
    assert json.loads(path.read_text())["execution"] in CHOICES
    path.write_text(path.read_text().replace("float32", "bfloat16"))  # as if another had been the fastest
    assert maker(plane, tmp_path, measured).make(ignore).made["execution"].endswith("bfloat16")


@pytest.mark.parametrize("change", [{"count": 100}, {"levels": 7}, {"seed": 4}])
def test_those_of_other_settings_are_not_gone_on_with(
    plane: ModelStore, tmp_path: Path, change: dict[str, int]
) -> None:
    small = SETTINGS.model_copy(update={"count": 10})
    maker(plane, tmp_path, small).make(ignore)
    with pytest.raises(ValueError, match="has flows of another teacher, or of other settings: use another --out"):
        maker(plane, tmp_path, small.model_copy(update=change)).make(ignore)


def test_labels_are_drawn_alike_and_some_are_untold(
    labelled_model: ScoreModel, labelled_card: ModelCard, tmp_path: Path
) -> None:
    settings = FlowSettings(count=400, levels=2)
    labels = Maker(labelled_model, labelled_card, settings, 0.25, tmp_path).labels
    assert labels is not None
    counts = torch.bincount(labels, minlength=4)
    assert 60 < counts[3] < 140
    assert counts[:3].min() > 70


def test_a_label_leads_a_flow(labelled_model: ScoreModel, labelled_card: ModelCard, tmp_path: Path) -> None:
    settings = FlowSettings(count=4, levels=3)
    told, untold = (
        Maker(labelled_model, labelled_card, settings, share, tmp_path / str(share)).make(ignore)
        for share in (0.0, 1.0)
    )
    assert not (told.noises == untold.noises).all()


def test_without_classes_there_are_no_labels(flows: Flows) -> None:
    assert flows.labels is None
