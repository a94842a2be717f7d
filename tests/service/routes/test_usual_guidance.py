"""Guidance that a card names, over HTTP: of new images with a label, where a request says nothing of it."""

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
def led_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("led")
    publish_tiny(ModelStore(directory), "led", classes=("shirt", "shoe", "7"), draws_labels=True, guidance=3.0)
    return directory


@pytest.fixture
def settings(service_url: str, led_dir: Path) -> ServiceSettings:
    return ServiceSettings(redis_url=service_url, models_dir=led_dir, default_model="led", shard_size=4)


@pytest.fixture(scope="module")
def batch(led_dir: Path) -> Batch:
    return Batch(WorkerSettings(models_dir=led_dir).store(), 16, "cpu")


def test_a_job_says_how_far_it_was_led_and_asked_for_again_gives_the_same_images(
    client, work: Callable[[], None]
) -> None:
    usual, told, plain = (
        client.submit(count=2, seed=5, sampler=HEUN, **asked) for asked in ({}, {"guidance": 3}, {"guidance": 1})
    )
    again = [
        client.submit(count=2, seed=5, sampler=HEUN, labels=job["labels"], guidance=job["guidance"])
        for job in (usual, plain)
    ]
    assert [job["guidance"] for job in (usual, told, plain)] == [3, 3, 1]
    assert [job["progress"]["image_steps"] for job in (usual, told, plain)] == [20, 20, 10]
    work()
    images = [client.images(job) for job in (usual, told, plain, *again)]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[3])
    assert np.array_equal(images[2], images[4])
    assert not np.array_equal(images[0], images[2])


def test_an_interval_limits_it(client) -> None:
    job = client.submit(count=1, sampler=HEUN, guidance_interval=(0.1, 20.0))
    assert (job["guidance"], job["progress"]["image_steps"]) == (3, 8)


@pytest.mark.parametrize("label", [None, "shoe"])
def test_completions_are_led_only_if_that_is_asked_for(inpaint, png, picture, half_mask, label: str | None) -> None:
    """What is known says more of the class than guidance could."""
    fields = {} if label is None else {"label": label}
    answer = inpaint("multipart", png(picture), png(half_mask), count="2", **fields)
    assert answer.status_code == 202, answer.text
    assert answer.json()["guidance"] is None
