"""Labels that the seed draws, over HTTP: of new images of a model whose card says so, and of no others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.store import ModelStore
from service.settings import ServiceSettings
from tests.conftest import publish_tiny
from worker.device.batch import Batch
from worker.settings import WorkerSettings

HEUN = {"name": "heun", "levels": 3}


@pytest.fixture(scope="module")
def drawing_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("drawing")
    publish_tiny(ModelStore(directory), "drawing", classes=("shirt", "shoe", "7"), draws_labels=True)
    return directory


@pytest.fixture
def settings(service_url: str, drawing_dir: Path) -> ServiceSettings:
    return ServiceSettings(redis_url=service_url, models_dir=drawing_dir, default_model="drawing", shard_size=4)


@pytest.fixture(scope="module")
def batch(drawing_dir: Path) -> Batch:
    return Batch(WorkerSettings(models_dir=drawing_dir).store(), 16, "cpu")


def test_the_job_says_which_labels_were_drawn_and_asked_for_again_they_give_the_same_images(
    client, work: Callable[[], None]
) -> None:
    job = client.submit(count=6, seed=5, sampler=HEUN)
    assert sorted(job["labels"]) == [0, 0, 1, 1, 2, 2]
    again = client.submit(count=6, seed=5, sampler=HEUN, labels=job["labels"])
    fewer = client.submit(count=2, seed=5, sampler=HEUN)
    assert fewer["labels"] == job["labels"][:2]
    work()
    images = client.images(job)
    assert np.array_equal(images, client.images(again))
    assert np.array_equal(images[:2], client.images(fewer))


def test_another_seed_draws_others(client) -> None:
    assert {client.submit(count=1, seed=seed)["labels"][0] for seed in range(20)} == {0, 1, 2}


def test_what_was_asked_for_is_not_drawn(client) -> None:
    assert client.submit(count=3, label="7")["labels"] == [2]


def test_drawn_labels_can_be_guided(client) -> None:
    job = client.submit(count=2, seed=1, guidance=2, sampler=HEUN)
    assert (len(job["labels"]), job["progress"]["image_steps"]) == (2, 2 * 2 * 5)


def test_completions_are_of_no_class_in_particular(client, inpaint, png, picture, half_mask) -> None:
    """What is known says more of the class than a draw could."""
    answer = inpaint("multipart", png(picture), png(half_mask), count="2")
    assert answer.status_code == 202, answer.text
    assert answer.json()["labels"] is None
