"""Restoring judged: what is exact, what is known of real images, and what is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.evaluation import restoration as subject
from models.evaluation.classifier import Classifier
from models.evaluation.evaluation import EvaluationFailed
from models.evaluation.restoration import Restoration, Restorations
from models.evaluation.tasks import TASKS
from models.samplers.euler import Euler
from models.samplers.repaint import Repaint
from models.training.labelled import load_labelled

REPAINT, EULER = Repaint(name="repaint", levels=3, resamples=2), Euler(name="euler", levels=4)
Restore = Callable[..., tuple[Restorations, Path]]


@pytest.fixture
def restore(
    models_dir: Path, textures_path: Path, classifier: Classifier, classifiers: Path, tmp_path: Path
) -> Restore:
    def run(
        on_progress: Callable[[str, int, int], None] = lambda *_: None, **changes: Any
    ) -> tuple[Restorations, Path]:
        values: dict[str, Any] = {
            "model": "tiny",
            "data": textures_path,
            "store": models_dir,
            "samplers": (REPAINT, EULER),
            "count": 20,
            "out": tmp_path / "out",
            "cache": classifiers,
            "command": "scoreserve evaluate tiny --restore",
        }
        return Restoration.model_validate(values | changes).run(on_progress)

    return run


def test_every_task_that_fits_is_judged_and_written_down(restore: Restore) -> None:
    seen: list[tuple[str, int, int]] = []
    found, out = restore(lambda *progress: seen.append(progress))
    tasks = [task.name for task in TASKS if task.name != "enlarged by 7"]
    assert [entry.task for entry in found.entries] == tasks * 2
    assert {entry.evaluations for entry in found.entries} == {5, 4}
    assert Restorations.model_validate_json((out / "restoration.json").read_text()) == found
    assert json.loads((out / "restoration.json").read_text())["command"] == "scoreserve evaluate tiny --restore"
    assert len(list((out / "restored").glob("*.png"))) == len(found.entries)
    with Image.open(out / "restored" / "right-half-repaint-5.png") as picture:
        assert picture.size == (16 * 18 + 2, 3 * 18 + 2)
    assert (found.count, found.several) == (20, 2)
    assert found.real_same > 0.9
    for entry in found.entries:
        assert 0 <= entry.same <= 1
        assert entry.best <= entry.off * 3
        assert entry.diversity > 0
        assert (entry.jump is None) == entry.task.startswith("enlarged")
    assert seen[-1][1] == seen[-1][2]


def test_what_is_made_of_a_real_image_by_itself_is_that_image(
    restore: Restore, textures_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With completions replaced by the originals all figures are the best that there are."""
    complete = Restoration._complete

    def perfect(self: Restoration, *arguments: Any) -> Any:
        _, several, seconds = complete(self, *arguments)
        originals = arguments[3]
        return originals, np.stack([originals[: len(several)]] * several.shape[1], 1), seconds

    monkeypatch.setattr(Restoration, "_complete", perfect)
    found, _ = restore(samplers=(EULER,))
    for entry in found.entries:
        assert (entry.same, entry.recognised) == (found.real_same, found.real_recognised)
        assert (entry.off, entry.best, entry.diversity) == (0, 0, 0)
        assert entry.distance == pytest.approx(found.real_distance)
        assert entry.jump in (None, pytest.approx(1.0))


def test_what_is_known_is_kept(restore: Restore, textures_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, np.ndarray] = {}
    restored = subject._Judge.restored

    def watched(self: Any, setting: Any, usual: bool, pixels: np.ndarray, *rest: Any) -> Any:
        kept[self.task.name] = pixels
        return restored(self, setting, usual, pixels, *rest)

    monkeypatch.setattr(subject._Judge, "restored", watched)
    restore(samplers=(REPAINT,))
    test = load_labelled(textures_path).test.pixels
    originals = test[np.arange(20) * len(test) // 20]
    assert (kept["right half"][:, :, :4] == originals[:, :, :4]).all()
    assert (kept["right half"][:, :, 4:] != originals[:, :, 4:]).any()
    of_blocks = [pixels.reshape(20, 4, 2, 4, 2).mean((2, 4)) for pixels in (kept["enlarged by 2"], originals)]
    assert np.abs(of_blocks[0] - of_blocks[1]).max() <= 0.51


def test_a_model_that_needs_a_label_is_told_the_originals_own(
    restore: Restore, labelled_dir: Path, textures_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int | None] = []
    chain = subject.Chain
    monkeypatch.setattr(subject, "Chain", lambda *a, **fields: told.append(fields["label"]) or chain(*a, **fields))
    restore(model="needy", store=labelled_dir, samplers=(EULER,), count=10)
    data = load_labelled(textures_path)
    assert told[:10] == data.test.labels.numpy()[subject.evenly(len(data.test.labels), 10)].tolist()
    restore(samplers=(EULER,), count=10)
    assert told[-1] is None


def test_a_network_is_run_as_its_card_says(restore: Restore, models_dir: Path, tmp_path: Path) -> None:
    found, _ = restore(tasks=("right half",), samplers=(EULER,))
    shutil.copytree(models_dir, tmp_path / "models")
    path = tmp_path / "models" / "tiny" / "1" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"execution": "eager bfloat16"}))
    other, _ = restore(tasks=("right half",), samplers=(EULER,), store=tmp_path / "models", out=tmp_path / "other")
    assert other.entries[0].off != found.entries[0].off


def test_by_default_it_is_what_requests_get(restore: Restore) -> None:
    found, _ = restore(samplers=(), count=2)
    assert [entry.label.split()[0] for entry in found.entries if entry.usual] == ["repaint"] * 9


def test_few_tasks_at_few_costs_stand_beside_what_requests_get(restore: Restore) -> None:
    found, _ = restore(samplers=(), evaluations=(4,), tasks=("right half",), count=2)
    assert {entry.task for entry in found.entries} == {"right half"}
    assert [entry.usual for entry in found.entries] == [True, *[False] * (len(found.entries) - 1)]
    assert {entry.evaluations for entry in found.entries[1:]} <= {3, 4}


def test_what_cannot_be_done_is_one_line(restore: Restore, tmp_path: Path) -> None:
    with pytest.raises(EvaluationFailed, match="tiny-one"):
        restore(model="tiny-one")
    with pytest.raises(EvaluationFailed, match="there is no task 'left'"):
        restore(tasks=("left",))
    with pytest.raises(EvaluationFailed, match="levels: a single level leads nowhere"):
        restore(samplers=(Euler(name="euler", levels=1),))
