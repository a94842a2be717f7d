"""`scoreserve api`: the HTTP service."""

import asyncio
import ctypes
import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Any, cast

import typer

from cli.console import fail
from cli.console import settings as read
from cli.logs import LogFormat, set_up
from cli.signals import ignored_stay_so

M_ARENA_MAX = -8  # of glibc's malloc.h
# That a thread keeps the interpreter while another waits for it, as the event loop does after all that it sends.
SWITCH_SECONDS = 0.0005
# A request makes a thousand objects and leaves none: by default some twentieth of its time would be looking for them.
COLLECTIONS = 10_000, 10, 10


def one_arena() -> None:
    """Makes all threads of this process allocate from one arena, where the C library is glibc.

    By itself it gives threads arenas of their own, up to eight a core. What one thread of the service allocates another
    frees, so that each arena keeps holes, and memory creeps up by some hundred bytes a job for as long as jobs come.
    Who has set MALLOC_ARENA_MAX has decided otherwise.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def api(
    redis_url: Annotated[
        str | None, typer.Option(help="Redis server.", envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"])
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback by default.")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="<int>", min=0, max=65535, help="Port to listen on; 8000 by default.")
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for a person, or JSON for a machine.", envvar="SCORESERVE_LOG_FORMAT")
    ] = LogFormat.TEXT,
) -> None:
    """Serve HTTP. Requests wait in Redis until a worker fulfils them.

    Every option can also be set in the environment, as SCORESERVE_PORT and so on.
    """
    one_arena()  # before there are threads
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()  # what is imported stays: looking for garbage in it would be a tenth of the start
    import uvicorn  # noqa: PLC0415

    from service.app import create_app  # noqa: PLC0415
    from service.connections import MOST_HEADER_BYTES, Connections  # noqa: PLC0415
    from service.settings import ServiceSettings  # noqa: PLC0415

    gc.enable()
    set_up(log_format)
    options: dict[str, Any] = {"redis_url": redis_url, "host": host, "port": port}
    settings = read(ServiceSettings, options)
    app = create_app(settings)
    if settings.api_metrics_port is not None:
        try:
            app.state.context.metrics.serve(settings.api_metrics_host, settings.api_metrics_port)
        except OSError as error:
            where = f"{settings.api_metrics_host}:{settings.api_metrics_port}"
            fail(f"metrics cannot be served on {where} ({error.strerror}); choose another SCORESERVE_API_METRICS_PORT")
    connections = Connections(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # its records go where ours go
        log_level="warning",
        proxy_headers=False,  # the application takes them
        timeout_graceful_shutdown=10,
        http=cast(Any, connections.protocol),
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            with ExitStack() as stack:
                with ignored_stay_so():
                    stack.enter_context(super().capture_signals())
                yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.watch = asyncio.create_task(connections.watch())
            gc.collect()
            gc.freeze()  # what is there for good is not walked through again and again while clients wait
            gc.set_threshold(*COLLECTIONS)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.context.stop()  # or the server would wait for those who wait, and for streams that have no end
            await super().shutdown(sockets)
            self.watch.cancel()

    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise typer.Exit(3)  # as uvicorn does
