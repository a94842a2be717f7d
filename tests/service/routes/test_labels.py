"""Classes and guidance over HTTP: what is asked for, refused, counted and promised."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

from models.store import ModelStore
from service.settings import ServiceSettings
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue.forecast import PACE
from worker.settings import WorkerSettings

HEUN = {"name": "heun", "levels": 3}  # of 5 evaluations


@pytest.fixture
def settings(service_url: str, labelled_dir: Path) -> ServiceSettings:
    return ServiceSettings(redis_url=service_url, models_dir=labelled_dir, default_model="labelled", shard_size=4)


@pytest.fixture(scope="module")
def batch(labelled_dir: Path) -> Batch:
    return Batch(WorkerSettings(models_dir=labelled_dir).store(), 16, "cpu")


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({"label": 3}, "/label", ["labelled has no class 3", "0 to 2, or a name: shirt, shoe, 7"]),
        ({"label": "hat"}, "/label", ["no class 'hat'", "shirt"]),
        ({"label": -1}, "/label", ["the index of a class, from 0 on, or its name"]),
        ({"label": True}, "/label", ["the index of a class"]),
        ({"label": 1.5}, "/label", ["the index of a class"]),
        ({"label": ""}, "/label", ["the index of a class"]),
        ({"label": 0, "labels": [0]}, "/labels", ["label or labels, not both"]),
        ({"labels": []}, "/labels", ["at least 1"]),
        ({"labels": 0}, "/labels", ["array"]),
        ({"labels": [0, "hat"]}, "/labels/1", ["no class 'hat'"]),
        ({"labels": [0, None]}, "/labels/1", ["the index of a class"]),
        ({"labels": [0] * 5, "count": 4}, "/labels", ["5 labels are more than 4 images", "1 to 4"]),
        ({"guidance": 2}, "/guidance", ["no label", "a label besides"]),
        ({"label": 0, "guidance": -1}, "/guidance", ["0 to 100"]),
        ({"label": 0, "guidance": 101}, "/guidance", ["0 to 100"]),
        ({"label": 0, "guidance": True}, "/guidance", ["is true | a number"]),
        ({"label": 0, "guidance_interval": [0, 1]}, "/guidance_interval", ["no guidance"]),
        ({"label": 0, "guidance": 2, "guidance_interval": [20, 30]}, "/guidance_interval", ["0.01 to 10"]),
        ({"label": 0, "guidance": 2, "guidance_interval": [1]}, "/guidance_interval/1", ["missing"]),
        ({"model": "needy", "guidance": 2}, "/guidance", ["never trained without a label"]),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    client, redis: Redis, refusal: Callable[..., str], body: dict[str, Any], pointer: str, said: list[str]
) -> None:
    found = refusal(client.post("/samples", json=body), pointer)
    for words in said:
        assert words in found
    assert redis.dbsize() == 0


def test_a_model_without_classes_says_so(new_client, service_url: str, models_dir: Path, refusal) -> None:
    settings = ServiceSettings(redis_url=service_url, models_dir=models_dir, default_model="tiny")
    client = new_client(settings)
    assert "tiny knows no classes" in refusal(client.post("/samples", json={"label": 0}), "/label")
    assert "tiny knows no classes" in refusal(client.post("/samples", json={"guidance": 2}), "/guidance")


@pytest.mark.parametrize(
    ("body", "labels", "evaluations"),
    [
        ({}, None, 5),
        ({"label": "shoe"}, [1], 5),
        ({"labels": [2, "shirt"], "guidance": 1}, [2, 0], 5),
        ({"label": 1, "guidance": 1.5}, [1], 10),
        ({"label": 1, "guidance": 0}, [1], 10),
        ({"label": 1, "guidance": 1.5, "guidance_interval": [5, 50]}, [1], 6),
        ({"model": "needy"}, [0, 1, 2], 5),
    ],
)
def test_a_job_says_its_labels_and_counts_a_guided_row_twice(client, work, body, labels, evaluations) -> None:
    job = client.submit(count=3, seed=1, sampler=HEUN, **body)
    assert job["labels"] == labels
    assert job["guidance"] == (None if body.get("guidance") == 1 else body.get("guidance"))
    assert job["guidance_interval"] == body.get("guidance_interval")
    assert job["progress"]["image_steps"] == 3 * evaluations
    work()
    ended = client.get(job["links"]["self"]).json()
    assert ended["progress"] == {"image_steps_done": 3 * evaluations, "image_steps": 3 * evaluations}
    again = {name: ended[name] for name in ("model", "count", "seed", "sampler", "labels", "guidance")}
    twin = client.submit(**again, guidance_interval=ended["guidance_interval"])
    work()
    assert np.array_equal(client.images(job), client.images(twin))


def test_labels_that_were_not_asked_for_can_be_asked_for_again(client) -> None:
    job = client.submit(model="needy", count=2)
    assert job["labels"] == [0, 1]
    assert client.submit(model="needy", count=2, labels=job["labels"])["labels"] == [0, 1]


def test_an_image_has_the_same_pixels_alone_and_in_company(client, work) -> None:
    """Of a mixed grid in shards of other widths, beside jobs of all kinds."""
    guided = {"guidance": 1.5, "guidance_interval": [0.1, 9]}
    grid = client.submit(count=6, seed=5, sampler=HEUN, labels=[0, 1, 2], **guided)
    client.submit(count=3, seed=6, sampler={"name": "ancestral", "levels": 7})
    client.submit(count=2, seed=7, label=1)
    client.submit(count=2, seed=7, label=1, guidance=3)
    work()
    images = client.images(grid)
    for count in (1, 4):
        alone = client.submit(count=count, seed=5, sampler=HEUN, labels=[0, 1, 2][:count], **guided)
        work()
        assert np.array_equal(client.images(alone), images[:count])
    assert len({image.tobytes() for image in images}) == 6
    others = client.submit(count=2, seed=5, sampler=HEUN, labels=[0, 2], **guided)
    work()
    assert np.array_equal(client.images(others)[0], images[0])
    assert not np.array_equal(client.images(others)[1], images[1]), "it is of another class"


def test_completions_have_classes_too(client, inpaint, work, png, picture, half_mask) -> None:
    fields = {"label": "7", "guidance": "2.5", "guidance_interval": "[0.1, 20]", "seed": "3", "count": "2"}
    as_form = inpaint("multipart", png(picture), png(half_mask), **fields)
    assert as_form.status_code == 202, as_form.text
    as_json = inpaint(
        "json", png(picture), png(half_mask), label=2, guidance=2.5, guidance_interval=[0.1, 20], seed=3, count=2
    ).json()
    other = inpaint("json", png(picture), png(half_mask), label=0, guidance=2.5, seed=3, count=2).json()
    work()
    images = client.images(as_form.json())
    assert np.array_equal(images, client.images(as_json))
    assert not np.array_equal(images, client.images(other))
    assert np.array_equal(images[:, :, :4, 0], np.stack([picture[:, :4]] * 2))
    in_turn = inpaint("multipart", png(picture), png(half_mask), labels='["shoe", 0]', seed="3", count="2").json()
    assert in_turn["labels"] == [1, 0]


def test_enlargements_have_classes_too(client, work, png, picture) -> None:
    image = base64.b64encode(png(picture[:4, :4])).decode()
    asked = {"image": image, "seed": 3, "count": 2, "sampler": HEUN}
    jobs = [
        client.post("/upscale", json={**asked, **told}).json()
        for told in ({"label": 2, "guidance": 2.5}, {"label": 0, "guidance": 2.5}, {})
    ]
    assert [job["progress"]["image_steps"] for job in jobs] == [20, 20, 10]
    work()
    images = [client.images(job) for job in jobs]
    assert len({one.tobytes() for one in images}) == 3
    for one in images:
        means = one.reshape(2, 4, 2, 4, 2).mean((2, 4))
        assert np.abs(means - picture[:4, :4]).max() <= 1


def test_a_key_stands_for_the_labels_too(client, problem) -> None:
    def ask(**body: Any) -> httpx.Response:
        return client.post("/samples", json={"count": 2, **body}, headers={"Idempotency-Key": "k"})

    first = ask(label=1, guidance=2)
    assert ask(label=1, guidance=2).json()["id"] == first.json()["id"]
    problem(ask(label=2, guidance=2), 422, "idempotency-mismatch")
    problem(ask(label=1, guidance=3), 422, "idempotency-mismatch")


def test_limits_count_a_guided_row_twice(new_client, settings: ServiceSettings, refusal) -> None:
    client = new_client(settings.model_copy(update={"max_image_steps_per_job": 40}))
    assert client.submit(count=8, label=0, sampler=HEUN)["progress"]["image_steps"] == 40
    body = {"count": 8, "label": 0, "guidance": 2, "sampler": HEUN}
    assert "8 images of 10 network evaluations are 80" in refusal(client.post("/samples", json=body), "/count")


def test_frames_are_of_rows_and_a_deadline_is_of_them_too(client, redis: Redis, refusal, work) -> None:
    """One guided image takes as long as its rows, since both evaluations of a row are one step."""
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", PACE, json.dumps({"labelled": (1.0, 100.0)}))
    guided = {"count": 1, "label": 0, "guidance": 2, "sampler": HEUN}
    assert client.post("/samples", json={**guided, "deadline_seconds": 6}).status_code == 202
    assert "at least 5" in refusal(client.post("/samples", json={**guided, "deadline_seconds": 4}), "/deadline_seconds")
    framed = client.submit(**guided, frames=64)
    assert framed["frames"] == 5
    redis.delete("rq:worker:w", "rq:workers")
    work()
    assert client.get(framed["links"]["filmstrip"]).status_code == 200


def test_what_a_worker_laid_aside_half_way_ends_the_same(
    client, labelled_dir: Path, worker_url: str, work, until, settings
) -> None:
    """Saved state is x and the cursor; labels and guidance are in the request."""
    batch = Batch(ModelStore(labelled_dir), 16, "cpu")
    expected = client.submit(count=2, seed=9, labels=[0, 2], guidance=2, sampler=HEUN)
    work()
    job = client.submit(count=2, seed=9, labels=[0, 2], guidance=2, sampler=HEUN)
    first = BatchingWorker(Redis.from_url(worker_url), batch, WorkerSettings(redis_url=worker_url))
    first._install_signal_handlers = lambda: None  # type: ignore[method-assign]
    assert first._register()
    first._claim()
    first._step()
    first._step()
    first._hand_back()
    first.teardown()
    assert client.get(job["links"]["self"]).json()["progress"]["image_steps_done"] == 2 * 2 * 2
    work()
    assert np.array_equal(client.images(job), client.images(expected))
