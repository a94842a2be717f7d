"""The checkpoint of a run: whole, or the one before."""

import io
from pathlib import Path
from typing import Any

import pytest

from models.training.checkpoint import BEFORE, CHECKPOINT
from models.training.trainer import Trainer
from tests.models.training.small import IMAGES, SETTINGS


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    saved = []
    for step in range(3):
        trainer.step = step
        saved.append(trainer.save().read_bytes())
    assert (tmp_path / CHECKPOINT).read_bytes() == saved[2]
    assert (tmp_path / BEFORE).read_bytes() == saved[1]
    (tmp_path / BEFORE).replace(tmp_path / CHECKPOINT)
    resumed = Trainer(IMAGES, SETTINGS, tmp_path)
    resumed.resume()
    assert resumed.step == 1


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    before = trainer.save().read_bytes()
    trainer.step = 7
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="full"):
            trainer.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_ctrl_c_while_it_is_written_is_ctrl_c_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell():  # in the middle
                raise KeyboardInterrupt
            return super().write(data)

    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    before = trainer.save().read_bytes()
    trainer.step = 7
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: Interrupted())
        with pytest.raises(KeyboardInterrupt):
            trainer.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_full_disk_is_one_clear_error_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    path = trainer.save()
    before = path.read_bytes()
    path.with_suffix(".tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written to .*checkpoint\.pt: .*No space left on device"):
        trainer.save()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
