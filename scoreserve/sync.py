"""Client: the service from a program that waits for its answers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx

from scoreserve import calls, connection, flows, pictures
from scoreserve.calls import Ask, InpaintAsk, Picture
from scoreserve.events import Event
from scoreserve.flows import PATIENCE, Patience, id_of
from scoreserve.records import Job, Model, State
from scoreserve.steps import Emit, Flow, Open, Read, Run, Send, Sleep, Step

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

T = TypeVar("T")


class Client:
    """A connection to one service. Every method raises ScoreserveError where it cannot do what it says.

    Args:
        server: address of the service.
        api_key: `ssk_...`, where the service wants one.
        client_id: whose the jobs are, at a service without keys.
        timeout: seconds of silence after which a request has failed.
        patience: how often what is safe to repeat is tried.
        transport: of httpx, to talk to an application without a network.
    """

    def __init__(
        self,
        server: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        client_id: str | None = None,
        timeout: float = 30.0,
        patience: Patience = PATIENCE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience = patience
        self._http = httpx.Client(**connection.options(server, api_key, client_id, timeout), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def sample(self, **ask: Unpack[Ask]) -> Job:
        """Asks for images; returns the job, accepted and not yet done. See `Ask`."""
        return self._run(flows.read(calls.sample(ask), self._patience, Job.of))

    def inpaint(self, image: Picture, mask: Picture | None = None, **ask: Unpack[InpaintAsk]) -> Job:
        """Asks to fill in the white part of a mask, or without one what is transparent in the picture.

        Args:
            image: a Pillow image, a uint8 array [height, width(, channels)], the path of a file, or its bytes.
            mask: the same; also a bool array. White (true) is repainted.
            ask: see `InpaintAsk`.
        """
        return self._run(flows.read(calls.inpaint(image, mask, ask), self._patience, Job.of))

    def job(self, job: Job | str) -> Job:
        """The job as it is now."""
        return self._run(flows.read(calls.job(id_of(job)), self._patience, Job.of))

    def jobs(self, *, state: Sequence[State] = (), model: Sequence[str] = (), page: int = 20) -> Iterator[Job]:
        """Your jobs, newest first, fetched page by page as you go on.

        Args:
            state: only those in one of these states.
            model: only those of one of these models.
            page: how many are fetched at once, 1 to 100.
        """
        return self._iterate(Run(flows.jobs(state, model, page, self._patience)))

    def cancel(self, job: Job | str) -> Job:
        """Cancels a job; raises Conflict if it has ended."""
        return self._run(flows.read(calls.cancel(id_of(job)), self._patience, Job.of))

    def events(self, job: Job | str, *, previews: bool = False, last_id: str | None = None) -> Iterator[Event]:
        """The job's events until it has ended. A lost connection is made again, and no event is missed.

        Args:
            job: or its id.
            previews: whether pictures of the denoised estimates come too.
            last_id: `id` of the last event that was seen before, to go on after it.
        """
        return self._iterate(Run(flows.events(id_of(job), previews, last_id, self._patience)))

    def follow(self, job: Job | str, *, previews: bool = False) -> Iterator[Event]:
        """The same from the beginning; where the service has no events, its progress by asking again and again."""
        return self._iterate(Run(flows.follow(id_of(job), previews, self._patience)))

    def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """The job once it is finished.

        Args:
            job: or its id.
            timeout: seconds after which WaitedTooLong is raised; the job goes on.

        Raises:
            JobFailed: it failed or was cancelled.
        """
        return self._run(flows.wait(job, timeout, self._patience))

    def grid(self, job: Job | str, *, columns: int | None = None, padding: int = 2, scale: int = 2) -> "Image":
        """All images of a finished job in one picture."""
        call = calls.view(id_of(job), "grid.png", {"columns": columns, "padding": padding, "scale": scale})
        return self._run(flows.content(call, self._patience, pictures.decode))

    def image(self, job: Job | str, index: int) -> "Image":
        """One image of a finished job."""
        call = calls.view(id_of(job), f"images/{index}.png", {})
        return self._run(flows.content(call, self._patience, pictures.decode))

    def arrays(self, job: Job | str) -> "np.ndarray":
        """All images of a finished job: uint8 [count, height, width, channels]."""
        call = calls.view(id_of(job), "samples.npz", {})
        return self._run(flows.content(call, self._patience, pictures.arrays))

    def view(self, job: Job | str, name: str, **parameters: Any) -> bytes:
        """A file of a finished job, as the service draws it.

        Args:
            job: or its id.
            name: grid.png, samples.npz, images.zip, animation.webp, animation.gif, filmstrip.png, images/0.png, ...
            parameters: of the query, such as columns=8.
        """
        return self._run(flows.content(calls.view(id_of(job), name, parameters), self._patience, bytes))

    def models(self) -> list[Model]:
        """What can be sampled."""
        return self._run(flows.read(calls.get("models"), self._patience, flows.model_list))

    def model(self, name: str, version: int | None = None) -> Model:
        """One model, the newest version of it by default."""
        return self._run(flows.read(calls.model(name, version), self._patience, Model.of))

    def unready(self) -> str | None:
        """Why the service would take no job now, such as that no worker is alive; None if it would."""
        return self._run(flows.unready())

    def _run(self, flow: Flow[T]) -> T:
        run = Run(flow)
        for _ in self._iterate(run):
            pass
        return run.result

    def _iterate(self, run: Run[Any]) -> Iterator[Any]:
        with closing(_Wire(self._http)) as wire:
            step = run.begin()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.item
                    step = run.done(None)
                    continue
                try:
                    outcome = wire.perform(step)
                except httpx.TransportError as error:
                    step = run.failed(error)
                else:
                    step = run.done(outcome)


class _Wire:
    """Does the steps of one run; holds the stream that it reads."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Any:
        match step:
            case Send(call):
                return self._http.send(connection.request(self._http, call))
            case Open(call):
                self.close()
                self._stream = self._http.send(connection.request(self._http, call), stream=True)
                if not self._stream.is_success:
                    self._stream.read()
                self._chunks = self._stream.iter_bytes()
                return self._stream
            case Read():
                return next(self._chunks, b"")
            case Sleep(seconds):
                time.sleep(seconds)
        return None

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
