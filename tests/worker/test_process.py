"""How a worker process starts: on a Redis that answers, if not yet with what it is asked for."""

from collections.abc import Callable, Iterator

import pytest
import torch
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from worker.batching import BatchingWorker
from worker.process import COMMAND_TIMEOUT_SECONDS, WorkerFailed, run
from worker.settings import WorkerSettings

DISK_FULL = ResponseError("MISCONF Errors writing to the AOF file: No space left on device")


@pytest.fixture(autouse=True)
def as_before(new_worker: object) -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = deterministic


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[RedisError], None]:
    """Makes PING fail."""

    def make(error: RedisError) -> None:
        def ping(_: Redis) -> None:
            raise error

        monkeypatch.setattr(Redis, "ping", ping)

    return make


def test_a_worker_starts_where_the_disk_of_redis_is_full(
    settings: WorkerSettings, refuse: Callable[[RedisError], None]
) -> None:
    refuse(DISK_FULL)
    run(settings, burst=True)


@pytest.mark.parametrize("error", [RedisConnectionError("refused"), NoPermissionError("no permissions")])
def test_a_redis_that_is_not_there_or_not_for_us_is_said_at_once(
    settings: WorkerSettings, refuse: Callable[[RedisError], None], error: RedisError
) -> None:
    refuse(error)
    with pytest.raises(WorkerFailed, match=f"no Redis at .*{error}"):
        run(settings, burst=True)


@pytest.mark.parametrize("exact", [True, False])
def test_asked_to_be_exact_a_gpu_adds_up_in_one_order(settings: WorkerSettings, exact: bool) -> None:
    run(settings.model_copy(update={"exact": exact}), burst=True)
    assert torch.backends.cudnn.deterministic == exact


@pytest.mark.parametrize("lease_seconds", [2, 60])
def test_a_command_takes_no_longer_than_it_may_however_long_a_lease_lasts(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, lease_seconds: int
) -> None:
    used: list[float | None] = []

    def work(worker: BatchingWorker, burst: bool) -> None:
        pool = worker.connection.connection_pool
        used.extend([pool.connection_kwargs["socket_timeout"], pool.make_connection().socket_timeout])

    monkeypatch.setattr(BatchingWorker, "work", work)
    run(settings.model_copy(update={"lease_seconds": lease_seconds}))
    assert used == [COMMAND_TIMEOUT_SECONDS, COMMAND_TIMEOUT_SECONDS]
