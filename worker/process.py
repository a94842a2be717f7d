"""One worker process, from its settings to its end."""

import logging

import torch
from redis.exceptions import RedisError, ResponseError

from models.files import cache_dir
from models.sampling.choice import Remembered
from models.sampling.execution import Execution
from models.store import BrokenModel, ModelNotFound
from worker.batching import BatchingWorker
from worker.device.batch import Batch, Lacking
from worker.device.lane import DeviceFailed
from worker.queue.server import connect, unavailable, without_password
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

COMMAND_TIMEOUT_SECONDS = 10.0
ATTEMPTS = 2  # after that the batch goes on without Redis for a while


class WorkerFailed(RuntimeError):
    """The worker cannot start or go on; the message says what to do."""


class NoRedis(WorkerFailed):
    """No Redis answers where one should be."""


def run(settings: WorkerSettings, burst: bool = False) -> None:
    """Loads its models (the default one, if it serves all), then works until it is told to stop.

    With `burst` it works until nothing waits.

    Raises:
        WorkerFailed: Redis, the device or the default model cannot be used, or the device failed later.
    """
    torch.set_num_threads(1)  # pieces of a batch are evaluated side by side, which an operation's threads are not for
    torch.backends.cudnn.deterministic = settings.exact  # some of its algorithms add up in any order
    try:
        connect(settings.redis_url, timeout=5, attempts=3).ping()
    except (RedisError, ValueError) as error:
        if not (isinstance(error, ResponseError) and unavailable(error)):  # it answers: the worker waits for it
            raise NoRedis(without_password(f"no Redis at {settings.redis_url}: {error}")) from error
    batch = Batch(
        settings.store(),
        settings.slots,
        settings.device,
        settings.models_memory_mb * 2**20,
        settings.exact,
        Remembered(cache_dir() / "executions.json"),
        settings.threads,
        Execution.named(settings.execution) if settings.execution else None,
    )
    names = settings.model_names or [settings.default_model]
    for name in names:
        try:
            batch.warm_up(name)
        except (ModelNotFound, BrokenModel, Lacking, DeviceFailed) as error:
            raise WorkerFailed(
                f"model {name} cannot be used on {settings.device} with {settings.slots} slots: {error}"
            ) from error
    connection = connect(settings.redis_url, timeout=COMMAND_TIMEOUT_SECONDS, attempts=ATTEMPTS)
    worker = BatchingWorker(connection, batch, settings)
    if settings.metrics_port is not None:
        try:
            worker.metrics.serve(settings.metrics_host, settings.metrics_port)
        except OSError as error:
            where = f"{settings.metrics_host}:{settings.metrics_port}"
            raise WorkerFailed(
                f"metrics cannot be served on {where} ({error.strerror}); choose another port"
            ) from error
    log.info("ready: %d slots on %s", settings.slots, settings.device, extra={"worker": worker.name})
    try:
        worker.work(burst=burst)
    except DeviceFailed as error:
        raise WorkerFailed(f"{error}; what was in flight went back to the queue: start a new worker") from error
