"""POST /colorize: the mean of the channels is the given value everywhere, and what has colours is refused."""

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from redis import Redis

from models.store import ModelStore
from tests.conftest import publish_tiny
from worker.device.batch import Batch

Asked = Callable[..., httpx.Response]
Png = Callable[[np.ndarray], bytes]
FORMS = pytest.mark.parametrize("form", ["multipart", "json"])


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `tiny`, which has colours, and `grey`, which has none."""
    directory = tmp_path_factory.mktemp("colours")
    publish_tiny(ModelStore(directory), channels=3)
    publish_tiny(ModelStore(directory), "grey")
    return directory


@pytest.fixture(scope="session")
def batch(models_dir: Path) -> Batch:
    """What every worker here works with."""
    return Batch(ModelStore(models_dir), 16, "cpu")


@FORMS
def test_the_mean_of_the_channels_is_the_given_value(
    form: str, client, asked: Asked, work: Callable[[], None], png: Png, picture: np.ndarray
) -> None:
    picture[0, 0], picture[0, 1] = 0, 255
    answers = [asked(form, "/colorize", {"image": png(picture)}, count=5, seed=seed) for seed in (1, 2, 1)]
    assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
    jobs = [answer.json() for answer in answers]
    assert jobs[0]["kind"] == "colorize"
    work()
    first, second, again = (client.images(job) for job in jobs)
    for images in (first, second):
        assert images.shape == (5, 8, 8, 3)
        assert np.abs(images.mean(-1) - picture).max() <= 0.51
    assert len({image.tobytes() for image in (*first, *second)}) == 10
    assert (first == again).all()
    assert np.abs(np.diff(first.astype(int), axis=-1)).mean() > 5, "they have colours"


@FORMS
def test_what_cannot_be_coloured_is_refused(
    form: str, asked: Asked, redis: Redis, refusal: Callable[..., str], png: Png, picture: np.ndarray
) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert "colours already" in refusal(asked(form, "/colorize", {"image": png(colour)}), "/image")
    assert "9 x 8" in refusal(asked(form, "/colorize", {"image": png(np.zeros((8, 9), np.uint8))}), "/image")
    no_colours = refusal(asked(form, "/colorize", {"image": png(picture)}, model="grey"), "/model")
    assert "the images of grey have no colours" in no_colours
    assert "one in colour: cifar10, tiny" in no_colours
    assert redis.dbsize() == 0


@FORMS
@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_a_grey_picture_of_any_size_and_mode_is_fitted(form: str, fit: str, asked: Asked, png: Png) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 40, 1), dtype=np.uint8).repeat(3, 2)
    assert asked(form, "/colorize", {"image": png(grey)}, fit=fit).status_code == 202
