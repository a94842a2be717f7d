import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from models.training.records.curve import POINTS, loss_png, smoothed


@pytest.mark.parametrize("steps", [1, 7, POINTS, POINTS + 1, 12_345])
def test_the_curve_is_short_and_of_the_same_mean(steps: int) -> None:
    losses = np.random.default_rng(0).random(steps).tolist()
    ends, means = smoothed(losses)
    assert len(ends) <= POINTS
    assert ends[-1] == steps
    assert float((np.diff(ends, prepend=0) * means).sum()) == pytest.approx(sum(losses))


@pytest.mark.parametrize("losses", [[1.0], [2.0, 1.0, 0.5], [0.5, -0.5, -1.0]], ids=["one", "positive", "negative"])
def test_the_curve_is_a_picture_whatever_the_signs_of_the_loss(losses: Sequence[float]) -> None:
    png = loss_png(losses)
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        assert np.asarray(picture.convert("L")).min() < 100


def test_without_matplotlib_there_is_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert loss_png([1.0]) is None
