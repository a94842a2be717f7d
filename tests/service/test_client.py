"""The client against the service itself, with a worker."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from scoreserve import AsyncClient, Conflict, NotFound, Refused


@pytest.fixture
def run(client: Any) -> Callable[..., Any]:
    """Runs a method of an AsyncClient on the application's own event loop."""

    async def method(name: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncClient("http://test", transport=httpx.ASGITransport(client.app)) as connected:
            outcome = getattr(connected, name)(*arguments, **options)
            return [item async for item in outcome] if hasattr(outcome, "__aiter__") else await outcome

    return lambda *arguments, **options: client.call(method(*arguments, **options))


def test_a_grid_from_asking_to_its_pixels(run: Callable[..., Any], work: Callable[[], None]) -> None:
    job = run("sample", model="tiny", count=3, seed=7, sampler="heun")
    assert (job.state, job.count, job.seed, job.sampler["name"], job.kind) == ("queued", 3, 7, "heun", "sample")
    work()
    ended = run("wait", job, timeout=30)
    assert ended.image_steps_done == ended.image_steps > 0
    images = run("arrays", ended)
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), np.uint8)
    assert (np.asarray(run("image", ended, 2)) == images[2, :, :, 0]).all()
    assert run("grid", ended, columns=3, padding=0, scale=1).size == (24, 8)
    events = run("follow", ended)
    assert events[-1].job == ended


def test_a_completion_keeps_what_was_known(
    run: Callable[..., Any], work: Callable[[], None], picture: np.ndarray, half_mask: np.ndarray
) -> None:
    job = run("inpaint", picture, half_mask, count=2)
    work()
    images = run("arrays", run("wait", job))
    assert (images[:, :, :4, 0] == picture[:, :4]).all()
    assert (images[:, :, 4:, 0] != picture[:, 4:]).any()


def test_what_cannot_be_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(Refused, match="allowed: one of: ") as raised:
        run("sample", model="gone")
    assert raised.value.errors[0].pointer == "/model"
    assert raised.value.request_id
    with pytest.raises(NotFound):
        run("job", "0" * 24)


def test_a_job_is_cancelled_once(run: Callable[..., Any]) -> None:
    job = run("sample")
    assert run("cancel", job).state == "cancelled"
    with pytest.raises(Conflict):
        run("cancel", job)


def test_models_and_their_cards(run: Callable[..., Any]) -> None:
    models = run("models")
    assert "tiny" in [model.name for model in models]
    assert run("model", "tiny").shape == (8, 8, 1)
