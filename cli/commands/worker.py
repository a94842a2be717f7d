"""`scoreserve worker`: fulfils requests from the queue on one device."""

import gc
import os
import signal
from typing import Annotated, Any

import typer

from cli.console import err, fail
from cli.console import settings as read
from cli.logs import LogFormat, set_up
from cli.running import DataDir, Running, nothing_runs, say_taken


def worker(
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Redis server.",
            envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"],
            show_default="that of `scoreserve up`, if it runs",
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or cuda:1 for the second GPU.")] = None,
    slots: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="Chains that are advanced together.")
    ] = None,
    exact: Annotated[
        bool | None,
        typer.Option("--exact/--no-exact", help="Pixels depend on the request alone, by default; or the fastest way."),
    ] = None,
    execution: Annotated[
        str | None,
        typer.Option(metavar="<name>", help="How all networks are run, such as 'channels_last bfloat16'."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="<names>", help="Serve only these models, such as mnist,cifar10; all by default."),
    ] = None,
    models_memory_mb: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="Memory for weights; the models used last stay.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="Threads on a CPU; one a core by default.")
    ] = None,
    lease_seconds: Annotated[
        int | None, typer.Option(metavar="<int>", min=2, help="How long a dead worker's shards stay claimed.")
    ] = None,
    shard_seconds: Annotated[
        float | None, typer.Option(metavar="<float>", min=0, help="How much of a large job is taken on at a time.")
    ] = None,
    slice_seconds: Annotated[
        float | None, typer.Option(metavar="<float>", min=0, help="How long a shard is worked on before it makes way.")
    ] = None,
    grace_seconds: Annotated[
        float | None, typer.Option(metavar="<float>", min=0, help="How long a stopping worker finishes work.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, max=65535, help="Port for Prometheus; none by default.")
    ] = None,
    metrics_host: Annotated[str | None, typer.Option(help="Address for Prometheus; loopback by default.")] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for a person, or JSON for a machine.", envvar="SCORESERVE_LOG_FORMAT")
    ] = LogFormat.TEXT,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when the queue is empty.")] = False,
) -> None:
    """Fulfil requests from the queue. Ctrl-C or SIGTERM finishes or requeues what is in flight.

    Every option can also be set in the environment, as SCORESERVE_SLOTS and so on.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until work begins there is nothing to finish
    gc.disable()  # what is imported stays: looking for garbage in it would be a tenth of the start
    from worker.process import NoRedis, WorkerFailed, run  # noqa: PLC0415 (torch)
    from worker.settings import WorkerSettings  # noqa: PLC0415

    gc.enable()
    set_up(log_format)
    options: dict[str, Any] = {
        "redis_url": redis_url,
        "device": device,
        "slots": slots,
        "exact": exact,
        "execution": execution,
        "models": models,
        "models_memory_mb": models_memory_mb,
        "threads": threads,
        "metrics_port": metrics_port,
        "metrics_host": metrics_host,
        "lease_seconds": lease_seconds,
        "shard_seconds": shard_seconds,
        "slice_seconds": slice_seconds,
        "grace_seconds": grace_seconds,
    }
    running = None if redis_url else Running.find(data_dir)
    if running:
        err.print(f"joins {running}", highlight=False)
        running.share()
    told = running.options if running else {}
    settings = read(WorkerSettings, told | {name: value for name, value in options.items() if value is not None})
    if not (redis_url or running):
        say_taken(settings.redis_url, data_dir)
    try:
        run(settings, burst)
    except NoRedis as error:
        fail(str(error) if redis_url or running else f"{error}; {nothing_runs(data_dir)} (--data-dir)")
    except WorkerFailed as error:
        fail(str(error))
