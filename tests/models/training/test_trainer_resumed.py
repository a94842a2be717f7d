"""A run that was stopped goes on to the very same weights, or says why it does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.training.levels import NoiseLevels
from models.training.trainer import Trainer
from tests.models.training.small import IMAGES, SETTINGS, Interrupted, ignore, state, stop_at


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("stops", [[5], [1, 4, 9]])
def test_an_interrupted_run_continues_as_if_it_had_not_been(tmp_path: Path, stops: list[int], optimizer: str) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    whole = Trainer(IMAGES, settings, tmp_path / "never written")
    whole.train(ignore)
    for stop in stops:
        trainer = Trainer(IMAGES, settings, tmp_path)
        trainer.resume()
        with pytest.raises(Interrupted):
            trainer.train(stop_at(stop))
        trainer.save()
        torch.rand(3)  # the global generator must not matter
    resumed = Trainer(IMAGES, settings, tmp_path)
    assert resumed.resume()
    assert resumed.step == stops[-1]
    resumed.train(ignore)
    assert resumed.losses == whole.losses
    assert resumed.seconds > 0
    expected = state(whole)
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed).items())


def test_an_interrupt_in_the_middle_of_a_step_does_not_count_it_twice(
    whole: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    with pytest.raises(Interrupted):
        trainer.train(stop_at(3))
    with monkeypatch.context() as patch:
        patch.setattr(trainer.averages, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trainer.train(ignore)
    trainer.save()
    resumed = Trainer(IMAGES, SETTINGS, tmp_path)
    resumed.resume()
    resumed.train(ignore)
    assert resumed.losses == whole.losses


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Trainer(IMAGES, SETTINGS, tmp_path).save()
    wider = SETTINGS.model_copy(update={"network": {**SETTINGS.network, "channels": [16, 64]}})
    with pytest.raises(ValueError, match="another network"):
        Trainer(IMAGES, wider, tmp_path).resume()


@pytest.mark.parametrize(
    ("images", "changes", "what"),
    [
        (IMAGES[:30], {}, "the images"),
        (255 - IMAGES, {}, "the images"),
        (IMAGES.repeat(1, 1, 2, 2), {}, "the images"),
        (IMAGES, {"objective": "denoising"}, "the objective"),
    ],
    ids=["fewer", "others", "larger", "objective"],
)
def test_a_run_does_not_go_on_with_what_would_change_what_it_learns(
    tmp_path: Path, images: Tensor, changes: dict[str, Any], what: str
) -> None:
    Trainer(IMAGES, SETTINGS, tmp_path).save()
    with pytest.raises(ValueError, match=f"differs in {what}: .*use another --out"):
        Trainer(images, SETTINGS.model_copy(update=changes), tmp_path).resume()


def test_a_run_resumed_with_other_settings_remembers_the_earlier_ones(tmp_path: Path) -> None:
    first = Trainer(IMAGES, SETTINGS, tmp_path)
    with pytest.raises(Interrupted):
        first.train(stop_at(4))
    first.save()
    longer = Trainer(IMAGES, SETTINGS.model_copy(update={"epochs": 4}), tmp_path)
    longer.resume()
    assert longer.history == [{"until_step": 4, "training": SETTINGS.model_dump()}]
    assert longer.changed == ["epochs"]
    longer.train(ignore)
    assert len(longer.losses) == longer.steps == 16
    same = Trainer(IMAGES, SETTINGS, tmp_path)
    same.resume()
    assert same.history == []


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    assert not trainer.resume()
    assert trainer.step == 0


def test_a_run_with_dropout_continues_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"network": {**SETTINGS.network, "dropout": 0.3}})
    whole = Trainer(IMAGES, settings, tmp_path / "never written")
    whole.train(ignore)
    first = Trainer(IMAGES, settings, tmp_path)
    with pytest.raises(Interrupted):
        first.train(stop_at(4))
    first.save()
    torch.rand(3)
    resumed = Trainer(IMAGES, settings, tmp_path)
    resumed.resume()
    resumed.train(ignore)
    assert resumed.losses == whole.losses
    dry = Trainer(IMAGES, SETTINGS, tmp_path / "never written")
    dry.train(ignore)
    assert dry.losses[2:] != whole.losses[2:], "dropout must have been at work"


def test_a_run_stops_after_the_step_at_which_it_is_told_to(whole: Trainer, tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    assert not trainer.train(ignore, lambda: trainer.step == 4)  # asked while the fifth step is made
    assert trainer.step == 5
    trainer.save()
    resumed = Trainer(IMAGES, SETTINGS, tmp_path)
    resumed.resume()
    assert resumed.train(ignore, lambda: resumed.step == resumed.steps - 1), "it is at its end anyway"
    assert resumed.losses == whole.losses


def test_a_checkpoint_that_is_older_than_a_setting_continues_with_its_default(tmp_path: Path) -> None:
    path = Trainer(IMAGES, SETTINGS, tmp_path).save()
    state = torch.load(path, weights_only=True)
    for name in ("objective", "levels", "flip", "compile"):
        del state["settings"][name]
    torch.save(state, path)
    same = Trainer(IMAGES, SETTINGS, tmp_path)
    assert same.resume()
    assert same.history == []
    flipping = Trainer(IMAGES, SETTINGS.model_copy(update={"flip": True}), tmp_path)
    flipping.resume()
    assert flipping.history[0]["training"]["flip"] is False


def test_levels_that_were_computed_once_are_kept_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"levels": NoiseLevels(sigma_min=0.01)})
    first = Trainer(IMAGES, settings, tmp_path)
    assert first.settings.levels == NoiseLevels(sigma_min=0.01).completed(IMAGES)
    assert first.sigmas is not None
    assert first.sigmas[0] == pytest.approx(8)  # from black to white, of 64 pixels
    first.save()
    with monkeypatch.context() as patch:
        patch.setattr("models.training.levels.diameter", lambda *_: pytest.fail("computed again"))
        resumed = Trainer(IMAGES, settings, tmp_path)
        assert resumed.resume()
        assert resumed.sigmas == first.sigmas
        assert resumed.history == []
    other = Trainer(IMAGES, SETTINGS.model_copy(update={"levels": NoiseLevels(sigma_min=0.02)}), tmp_path)
    assert other.settings.levels == NoiseLevels(sigma_min=0.02).completed(IMAGES)
