"""`scoreserve worker`: fulfils requests from the queue on one device."""

import logging
from typing import Annotated, Any

import typer

from cli.console import fail
from cli.console import settings as read


def worker(
    redis_url: Annotated[
        str | None, typer.Option(help="Redis server.", envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"])
    ] = None,
    device: Annotated[str | None, typer.Option(help="torch device, such as cpu or cuda:0.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Chains that are advanced together.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Serve only these models, such as mnist,cifar10; all by default.")
    ] = None,
    models_memory_mb: Annotated[
        int | None, typer.Option(min=1, help="Memory for weights; the models used last stay.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=2, help="CPU threads; start more workers for more cores.")
    ] = None,
    lease_seconds: Annotated[
        int | None, typer.Option(min=2, help="How long a dead worker's shards stay claimed.")
    ] = None,
    grace_seconds: Annotated[
        float | None, typer.Option(min=0, help="How long a stopping worker finishes work.")
    ] = None,
    burst: Annotated[bool, typer.Option(help="Stop when the queue is empty.")] = False,
) -> None:
    """Fulfil requests from the queue. Ctrl-C or SIGTERM finishes or requeues what is in flight.

    Every option can also be set in the environment, as SCORESERVE_SLOTS and so on.
    """
    from worker.process import WorkerFailed, run  # noqa: PLC0415 (torch)
    from worker.settings import WorkerSettings  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    options: dict[str, Any] = {
        "redis_url": redis_url,
        "device": device,
        "slots": slots,
        "models": models,
        "models_memory_mb": models_memory_mb,
        "threads": threads,
        "lease_seconds": lease_seconds,
        "grace_seconds": grace_seconds,
    }
    settings = read(WorkerSettings, options)
    try:
        run(settings, burst)
    except WorkerFailed as error:
        fail(str(error))
