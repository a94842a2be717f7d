"""The study of noise at many magnitudes, on a tiny model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.card import ModelCard
from models.evaluation.distances import evenly
from models.score import ScoreModel
from models.study.digits import noise_report
from models.study.digits.noise import denoise, magnitudes, study
from models.training.labelled import load_labelled


def test_levels_are_those_of_the_models_range_or_those_that_it_knows(tiny_card: ModelCard) -> None:
    found = magnitudes(tiny_card, 4)
    assert (len(found), found[0], found[-1]) == (4, tiny_card.sigma_max, pytest.approx(tiny_card.sigma_min))
    assert magnitudes(tiny_card.model_copy(update={"sigmas": (1.0, 0.5, 0.1)}), 4) == [1.0, 0.5, 0.1]


def test_what_is_denoised_is_told_of_its_level_and_of_a_class_where_there_must_be_one(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.study.digits.noise.slots_of", lambda _: 2)
    x = torch.rand(5, *tiny_model.image.chw)
    assert torch.allclose(denoise(tiny_model, x, 0.5), tiny_model.denoise(x, 0.5), atol=1e-6)


def test_every_level_is_judged(models_dir: Path, labelled: Callable[[int], Path], classifiers: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = labelled(8)
    found = study("tiny", models_dir, path, 40, 3, classifiers, "cpu", lambda *at: told.append(at))
    assert (found.model, found.images) == ("tiny version 1", 40)
    assert told[-1] == ("noise levels", 3, 3)
    test = load_labelled(path).test.pixels[evenly(60, 40)]
    assert np.array_equal(found.clean, test[:3])
    largest, _, smallest = found.levels
    assert np.abs(smallest.noised.astype(int) - found.clean).max() < 255 * 5 * smallest.sigma + 1
    assert largest.named < 0.8 < smallest.named <= found.named == 1.0
    assert largest.off > smallest.off
    mean = load_labelled(path).train.pixels.mean(0)
    assert found.spread == pytest.approx(np.sqrt((((test - mean) / 255) ** 2).mean()))

    (section,) = noise_report.sections(found)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [
        "0",
        *(f"{level.sigma:.3g}" for level in reversed(found.levels)),
        "the mean of all training images",
    ]
    assert table.rows[-2][3] == f"{largest.off:.3f}"
    assert [level["named"] for level in noise_report.figures(found)["levels"]] == [lv.named for lv in found.levels]


def test_what_is_denoised_is_judged_apart_from_what_is_not(
    models_dir: Path, labelled: Callable[[int], Path], classifiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.study.digits.noise.denoise", lambda _model, x, _sigma: torch.zeros_like(x))
    found = study("tiny", models_dir, labelled(8), 40, 2, classifiers, "cpu", lambda *_: None)
    pixels = load_labelled(labelled(8)).test.pixels[evenly(60, 40)] / 255
    assert found.levels[-1].named == 1
    assert [level.named_denoised for level in found.levels] == pytest.approx([0.5] * 2, abs=0.05)  # all of one class
    assert [level.off for level in found.levels] == pytest.approx([np.sqrt((pixels**2).mean())] * 2)
    assert found.levels[0].denoised.max() == 0 < found.levels[0].noised.max()
