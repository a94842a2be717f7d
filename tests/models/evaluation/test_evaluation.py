import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.evaluation import evaluation as subject
from models.evaluation.bench import Bench
from models.evaluation.classifier import Classifier
from models.evaluation.distances import Moments, evenly, frechet
from models.evaluation.evaluation import Evaluation, EvaluationFailed
from models.evaluation.inception import InceptionFigures
from models.evaluation.nearest import Copying, median_distance
from models.evaluation.record import Record
from models.evaluation.samples import Samples
from models.guidance import Guidance
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from models.training.labelled import load_labelled
from tests.conftest import publish_tiny

HEUN, EULER = Heun(name="heun", levels=3), Euler(name="euler", levels=4)
Evaluate = Callable[..., tuple[Record, Path]]


@pytest.fixture
def store(models_dir: Path, tmp_path: Path) -> Path:
    """A store with the model `tiny`, whose card may be written."""
    shutil.copytree(models_dir, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def evaluate(store: Path, textures_path: Path, classifier: Classifier, classifiers: Path, tmp_path: Path) -> Evaluate:
    def run(on_progress: Callable[[str, int, int], None] = lambda *_: None, **changes: Any) -> tuple[Record, Path]:
        values: dict[str, Any] = {
            "model": "tiny",
            "data": textures_path,
            "store": store,
            "samplers": (HEUN,),
            "count": 20,
            "out": tmp_path / "out",
            "cache": classifiers,
            "command": "scoreserve evaluate tiny",
        }
        return Evaluation.model_validate(values | changes).run(on_progress)

    return run


@pytest.fixture(autouse=True)
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SLOTS", 8)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plot takes longer than all the rest: it is drawn where somebody looks at it."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(subject, "quality_png", lambda record: b"a picture")


@pytest.fixture
def drawn() -> None:
    """The plot is drawn."""


def test_the_figures_are_those_of_the_samples(
    evaluate: Evaluate, store: Path, classifier: Classifier, textures_path: Path
) -> None:
    record, out = evaluate()
    (entry,) = record.entries
    card = ModelStore(store).card("tiny")
    _, table = plan(HEUN, card)
    pixels = sample(ScoreModel.load(ModelStore(store), card), table, 20, seed=0)
    data = load_labelled(textures_path)
    bench = Bench(data, classifier, None, out)
    assert (entry.evaluations, entry.count, entry.image_steps) == (5, 20, 100)
    assert entry.figures == bench.figures(pixels)
    assert entry.figures.distance == frechet(classifier.features(pixels), classifier.features(data.test.pixels))
    assert (entry.compared, entry.distance_1000) == (entry.figures.distance, None)
    assert entry.copying == Copying.of(pixels, bench.train, median_distance(bench.test[evenly(200, 20)], bench.train))
    assert entry.image_steps_per_second == pytest.approx(100 / entry.seconds, rel=0.2)
    assert entry.label == "heun levels=3 sigma=10..0.01"

    (floor,) = record.floors
    real = data.train.pixels[evenly(len(data.train.images), 20)]
    assert (floor.count, floor.images, floor.figures) == (20, 20, bench.figures(real))
    assert record.judge.test_accuracy == classifier.test.accuracy
    assert record.subject.weights_sha256 == card.weights_sha256
    assert record.environment["command"] == "scoreserve evaluate tiny"


def test_a_network_is_run_as_its_card_says_or_as_the_run_does_and_the_card_tells_which(
    evaluate: Evaluate, store: Path, tmp_path: Path
) -> None:
    plain, _ = evaluate(into_card=True)
    other, out = evaluate(into_card=True, execution="channels_last bfloat16", out=tmp_path / "other")
    assert (plain.subject.execution, other.subject.execution) == ("eager float32", "channels_last bfloat16")
    assert other.entries[0].figures != plain.entries[0].figures
    metrics = ModelStore(store).card("tiny").metrics
    assert metrics["quality"]["execution"] == "eager float32"
    assert metrics["quality in channels_last bfloat16"]["execution"] == "channels_last bfloat16"
    with pytest.raises(EvaluationFailed, match="its execution differ: give another --out"):
        evaluate(out=out)

    path = store / "tiny" / "1" / "card.json"
    card = json.loads(path.read_text()) | {"execution": "channels_last bfloat16", "metrics": {}}
    path.write_text(json.dumps(card))
    fixed, _ = evaluate(into_card=True, out=tmp_path / "fixed")
    assert fixed.entries[0].figures == other.entries[0].figures
    assert ModelStore(store).card("tiny").metrics.keys() == {"quality"}


@pytest.mark.usefixtures("drawn")
def test_what_is_written_is_what_is_returned(evaluate: Evaluate) -> None:
    record, out = evaluate()
    assert Record.read(out) == record
    assert json.loads((out / "evaluation.json").read_text())["entries"][0]["evaluations"] == 5
    stem = record.entries[0].stem
    assert stem.startswith("heun-5-")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "evaluation.json",
        f"grids/{stem}.png",
        f"nearest/{stem}.png",
        "quality.png",
        *(f"samples/{stem}/{chunk}.npz" for chunk in ("0000000-0000008", "0000008-0000016", "0000016-0000020")),
    ]
    with Image.open(out / "grids" / f"{stem}.png") as grid:
        assert grid.size == (8 * 18 + 2, 3 * 18 + 2)
    with Image.open(out / "nearest" / f"{stem}.png") as nearest:
        assert nearest.size == (11 * 18 + 2, 10 * 18 + 2)


def test_by_default_it_is_in_a_directory_of_the_model_and_the_seed(evaluate: Evaluate, chdir: Path) -> None:
    _, out = evaluate(out=None)
    assert out == Path("runs/evaluate/tiny-1")
    assert (chdir / out / "evaluation.json").exists()
    assert evaluate(out=None, seed=7)[1] == Path("runs/evaluate/tiny-1-seed-7")


@pytest.fixture
def chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_second_run_draws_only_what_is_missing_and_adds_to_the_record(evaluate: Evaluate) -> None:
    drawn: list[tuple[str, int, int]] = []
    first, out = evaluate()
    again, _ = evaluate(lambda *stage: drawn.append(stage))
    assert drawn == []
    changing = {"date", "command"}
    assert again.entries[0].model_dump(exclude=changing) == first.entries[0].model_dump(exclude=changing)

    both, _ = evaluate(lambda *stage: drawn.append(stage), samplers=(HEUN, EULER), count=30)
    assert [(e.sampler["name"], e.count) for e in both.entries] == [("euler", 30), ("heun", 30)]
    labels = {what for what, _, _ in drawn}
    assert labels == {entry.label for entry in both.entries}
    heun = [(done, of) for what, done, of in drawn if what.startswith("heun")]
    assert heun[0] == (20 * 5 + 8, 150)
    assert heun[-1] == (150, 150)
    assert both.entries[1].seconds > first.entries[0].seconds
    assert {path.name for path in (out / "samples").iterdir()} == {entry.stem for entry in both.entries}


@pytest.mark.usefixtures("drawn")
def test_entries_of_different_counts_are_compared_at_the_smallest(
    evaluate: Evaluate, classifier: Classifier, textures_path: Path
) -> None:
    evaluate(count=30)
    record, out = evaluate(samplers=(EULER,), count=12)
    euler, heun = record.entries
    assert (record.compared, euler.count, heun.count) == (12, 12, 30)
    assert euler.compared == euler.figures.distance
    pixels = np.concatenate([np.load(p)["pixels"] for p in sorted((out / "samples" / heun.stem).iterdir())])[:12]
    real = classifier.features(load_labelled(textures_path).test.pixels)
    assert heun.compared == frechet(classifier.features(pixels), real)
    assert heun.compared > heun.figures.distance
    assert [floor.count for floor in record.floors] == [12, 30]

    shutil.rmtree(out / "samples" / heun.stem)
    record, _ = evaluate(samplers=(EULER,), count=11)
    assert record.entries[1].compared is None


def test_of_a_thousand_and_more_the_distance_of_a_thousand_is_told(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "COMPARABLE", 10)
    record, _ = evaluate(count=20)
    fewer, _ = evaluate(samplers=(HEUN,), count=10)
    assert record.entries[0].distance_1000 == fewer.entries[0].distance_1000 == fewer.entries[0].figures.distance


@pytest.mark.usefixtures("drawn")
def test_budgets_without_samplers_are_for_all(evaluate: Evaluate) -> None:
    record, _ = evaluate(samplers=(), evaluations=(7,), count=10)
    assert len(record.entries) == 9
    assert {entry.evaluations for entry in record.entries} == {7}


def test_what_is_found_goes_into_the_card(evaluate: Evaluate, store: Path) -> None:
    before = ModelStore(store).card("tiny")
    evaluate(samplers=(EULER,))
    record, _ = evaluate(samplers=(AnnealedLangevin(), HEUN), into_card=True)
    card = ModelStore(store).card("tiny")
    quality = card.metrics["quality"]
    assert (quality["count"], quality["seed"], quality["command"]) == (20, 0, "scoreserve evaluate tiny")
    assert quality["classifier_test_accuracy"] == record.judge.test_accuracy
    assert [figures["sampler"]["name"] for figures in quality["samplers"]] == ["annealed_langevin", "heun"]
    heun = next(entry for entry in record.entries if entry.sampler["name"] == "heun")
    assert quality["samplers"][1] == {
        "sampler": heun.sampler,
        "evaluations": 5,
        **heun.model_dump(mode="json")["figures"],
    }
    floor = record.floor(20)
    assert floor is not None
    assert quality["real"]["as many training images"]["distance"] == floor.figures.distance
    assert card.model_copy(update={"metrics": before.metrics}) == before


def test_an_interrupted_run_keeps_what_it_drew(evaluate: Evaluate) -> None:
    def interrupt(_what: str, done: int, _of: int) -> None:
        if done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(interrupt)
    drawn: list[int] = []
    record, _ = evaluate(lambda _what, done, _of: drawn.append(done))
    assert drawn[0] == 8 * 5 + 8
    assert record.entries[0].count == 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "large"}, "no model large; there is: tiny"),
        ({"data": Path("/nowhere")}, "no labelled data in /nowhere; expected one of"),
        ({"samplers": (Heun(name="heun", levels=1),)}, "levels: a single level leads nowhere"),
        ({"samplers": (HEUN,), "evaluations": (5,)}, "heun with 5 evaluations: levels: it decides"),
        ({"device": "abacus"}, "abacus"),
        ({"out": Path("/dev/null/out")}, "/dev/null"),
        ({"inception_weights": Path("/nowhere.pth")}, "nowhere.pth|torch-fidelity"),
    ],
)
def test_what_cannot_start_is_one_clear_line(evaluate: Evaluate, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationFailed, match=said) as failed:
        evaluate(**changes)
    assert "\n" not in str(failed.value)


def test_data_of_another_shape_are_refused(evaluate: Evaluate, tmp_path: Path) -> None:
    images, labels = np.zeros((300, 8, 8, 3), np.uint8), np.arange(300) % 2
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(EvaluationFailed, match=r"are 3 x 8 x 8 .*this model is of 1 x 8 x 8"):
        evaluate(data=tmp_path / "x.npz")


def test_one_directory_is_of_one_model_one_seed_and_one_judge(evaluate: Evaluate) -> None:
    _, out = evaluate()
    with pytest.raises(EvaluationFailed, match=r"evaluation of tiny version 1, and its seed differ.*another --out"):
        evaluate(seed=1)
    path = out / "evaluation.json"
    text = path.read_text()
    path.write_text(text.replace('"key": "', '"key": "0'))
    with pytest.raises(EvaluationFailed, match="judged by another classifier: move the file away"):
        evaluate()
    path.write_text(text.replace('"entries"', '"entry"'))
    with pytest.raises(
        EvaluationFailed, match=r"evaluation\.json is no record of an evaluation \(there is no field entry; did"
    ):
        evaluate()


class Looks:
    """Stands in for Inception, whose own tests are in test_inception.py."""

    def __init__(self, weights: Path, device: str) -> None:
        assert (weights.name, device) == ("inception.pth", "cpu")

    def moments(self, pixels: np.ndarray, data_sha256: str, cache: Path, on_images: Callable[[int], None]) -> Moments:
        on_images(len(pixels))
        return Moments(np.zeros(1), np.ones((1, 1)))

    def figures(self, pixels: np.ndarray, real: Moments, on_images: Callable[[int], None]) -> InceptionFigures:
        on_images(len(pixels))
        return InceptionFigures(len(pixels), fid=float(real.covariance[0, 0]), score=2.0, score_deviation=0.5)


def test_fid_is_asked_for_once_and_kept(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "Inception", Looks)
    stages: list[tuple[str, int, int]] = []
    record, _ = evaluate(lambda *stage: stages.append(stage), inception_weights=Path("inception.pth"))
    assert stages[-2:] == [
        ("Inception looks at the training images", 2048, 2048),
        ("Inception looks at the samples", 20, 20),
    ]
    assert record.entries[0].inception == InceptionFigures(20, 1.0, 2.0, 0.5)
    assert evaluate()[0].entries[0].inception == record.entries[0].inception
    assert evaluate(count=21)[0].entries[0].inception is None, "it was of fewer samples"


@pytest.mark.usefixtures("drawn")
def test_the_picture_is_one(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    record, out = evaluate(samplers=(HEUN, EULER))
    with Image.open(io.BytesIO((out / "quality.png").read_bytes())) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(1).any(), "a line for each sampler"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert subject.quality_png(record) is None


@pytest.mark.usefixtures("drawn")
def test_samples_of_classes_are_judged_by_their_labels(evaluate: Evaluate, labelled_dir: Path) -> None:
    changes = {"model": "labelled", "store": labelled_dir, "guidance": (1.0, 2.0), "guidance_interval": (0.1, 20.0)}
    record, out = evaluate(**changes)
    plain, guided = record.entries
    assert (plain.labels, plain.guidance, plain.evaluations) == ((0, 1, 2), None, 5)
    assert (guided.labels, guided.guidance, guided.guidance_interval) == ((0, 1, 2), 2.0, (0.1, 20.0))
    assert (guided.evaluations, guided.image_steps) == (8, 20 * 8), "of five rows three are guided"
    assert [entry.line for entry in record.entries] == ["heun by class", "heun guidance=2 at (0.1, 20.0)"]
    for entry in record.entries:
        assert entry.by_class is not None
        assert len(entry.by_class.distances) == 3
    card = ModelStore(labelled_dir).card("labelled")
    _, table = plan(HEUN, card)
    model = ScoreModel.load(ModelStore(labelled_dir), card)
    pixels = sample(model, table, 20, 0, labels=(0, 1, 2), guidance=Guidance(2.0, 0.1, 20.0))
    assert np.array_equal(Samples(out / "samples" / guided.stem).read(20).pixels, pixels)
    assert record.floors[0].by_class is not None
    with Image.open(out / "grids" / f"{guided.stem}.png") as grid:
        assert grid.size == (3 * 18 + 2, 7 * 18 + 2), "a column for each class"
    (unlabelled,) = evaluate(model="labelled", store=labelled_dir, labelled=False, out=out.parent / "other")[0].entries
    assert (unlabelled.labels, unlabelled.by_class) == (None, None)


@pytest.mark.parametrize("weight", [2.0, 0.0])
@pytest.mark.usefixtures("drawn")
def test_samples_are_guided_as_the_card_has_it(evaluate: Evaluate, tmp_path: Path, weight: float) -> None:
    publish_tiny(ModelStore(tmp_path), "led", classes=("shirt", "shoe", "7"), guidance=weight)
    (entry,) = evaluate(model="led", store=tmp_path)[0].entries
    assert entry.guidance == weight
    told, _ = evaluate(model="led", store=tmp_path, guidance=(1.0,))
    assert {entry.guidance for entry in told.entries} == {weight, None}


def test_what_cannot_be_judged_by_label_is_refused(
    evaluate: Evaluate, labelled_dir: Path, publish_labelled: Callable[..., Path]
) -> None:
    with pytest.raises(EvaluationFailed, match="guidance: tiny knows no classes"):
        evaluate(guidance=(2.0,))
    with pytest.raises(EvaluationFailed, match="there is no --guidance that it could limit"):
        evaluate(model="labelled", store=labelled_dir, guidance_interval=(0.1, 1.0))
    with pytest.raises(EvaluationFailed, match=r"two knows 2 classes, and .* has 3: other data, or --no-labels"):
        evaluate(model="two", store=publish_labelled("two", ("a", "b")))
