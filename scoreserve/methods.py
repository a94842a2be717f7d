"""What both clients can do: each method once, as the flow of what it does, which either client carries out its way.

`Client` has `def sample(**ask) -> Job` of `@answered def sample(self, **ask) -> Flow[Job]`, and `AsyncClient` has
`async def sample(**ask) -> Job` of the same; of `@emitted`, an iterator or an asynchronous one. For type checkers too.
"""

from __future__ import annotations  # so that help() says Flow[Job], and not what that is

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from scoreserve import calls, flows, pictures
from scoreserve.calls import Ask, InpaintAsk, Picture
from scoreserve.events import Event
from scoreserve.flows import PATIENCE, Line, Patience, id_of
from scoreserve.records import Job, Model, Sampler, State
from scoreserve.steps import Feed, Flow

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

P = ParamSpec("P")
T = TypeVar("T")
Transport = TypeVar("Transport")


class Waits(Protocol):
    """A client that waits for its answers."""

    def _run(self, flow: Flow[T], /) -> T: ...
    def _iterate(self, feed: Feed[T, Any], /) -> Iterator[T]: ...


class Awaits(Protocol):
    """A client for asyncio."""

    async def _run(self, flow: Flow[T], /) -> T: ...
    def _iterate(self, feed: Feed[T, Any], /) -> AsyncIterator[T]: ...


class answered(Generic[P, T]):
    """A method that has one answer: the result of the flow that the function returns."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self._flow = flow

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Flow[T]]: ...
    @overload
    def __get__(self, client: Waits, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaits, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self._flow if client is None else _bound(client, self._flow, client._run)


class emitted(Generic[P, T]):
    """A method that one iterates over: what the flow that the function returns emits."""

    def __init__(self, feed: Callable[Concatenate[Any, P], Feed[T, Any]]) -> None:
        self._feed = feed

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Feed[T, Any]]: ...
    @overload
    def __get__(self, client: Waits, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: Awaits, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self._feed if client is None else _bound(client, self._feed, client._iterate)


def _several(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _bound(client: Any, method: Callable[..., Any], carry_out: Callable[[Any], Any]) -> Callable[..., Any]:
    bound = MethodType(method, client)

    @wraps(bound)
    def call(*arguments: Any, **options: Any) -> Any:
        return carry_out(bound(*arguments, **options))

    return call


class Methods(ABC, Generic[Transport]):
    """A connection to one service. Every method raises ScoreserveError where it cannot do what it says.

    Args:
        server: address of the service.
        api_key: `ssk_...`, where the service wants one; by default what SCORESERVE_API_KEY says.
        client_id: whose the jobs are, at a service without keys.
        timeout: seconds of silence after which a request has failed; None waits for ever.
        patience: how often, and how long, what is safe to repeat is tried.
        transport: of httpx, to talk to an application without a network.
    """

    def __init__(
        self,
        server: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        client_id: str | None = None,
        timeout: float | None = 30.0,
        patience: Patience = PATIENCE,
        transport: Transport | None = None,
    ) -> None:
        self._line = Line(patience)
        self._connect(server=server, api_key=api_key, client_id=client_id, timeout=timeout, transport=transport)

    @abstractmethod
    def _connect(self, **options: Any) -> None:
        """Makes the client of httpx."""

    @answered
    def sample(self, **ask: Unpack[Ask]) -> Flow[Job]:
        """Asks for images; returns the job, accepted and not yet done. See `Ask`."""
        return flows.read(calls.sample(ask), self._line, Job.of)

    @answered
    def inpaint(self, image: Picture, mask: Picture | None = None, **ask: Unpack[InpaintAsk]) -> Flow[Job]:
        """Asks to fill in the white part of a mask, or without one what is transparent in the picture.

        Args:
            image: a Pillow image, a uint8 array [height, width(, channels)], the path of a file, or its bytes.
            mask: the same; also a bool array. White (true) is repainted, what is transparent is kept.
            ask: see `InpaintAsk`.
        """
        return flows.read(calls.inpaint(image, mask, ask), self._line, Job.of)

    @answered
    def upscale(self, image: Picture, **ask: Unpack[Ask]) -> Flow[Job]:
        """Asks to enlarge a picture to the model's size: the mean of each block of a result is the given pixel.

        Args:
            image: as for `inpaint`; both sides are the model's over the same whole number, at least 2.
            ask: see `Ask`.
        """
        return flows.read(calls.upscale(image, ask), self._line, Job.of)

    @answered
    def colorize(self, image: Picture, **ask: Unpack[InpaintAsk]) -> Flow[Job]:
        """Asks to colour a grey picture: the mean of a result's red, green and blue is everywhere the given value.

        Args:
            image: as for `inpaint`; grey, or of equal red, green and blue.
            ask: see `InpaintAsk`.
        """
        return flows.read(calls.colorize(image, ask), self._line, Job.of)

    @answered
    def job(self, job: Job | str) -> Flow[Job]:
        """The job as it is now."""
        return flows.read(calls.job(id_of(job)), self._line, Job.of)

    @emitted
    def jobs(
        self, *, state: State | Sequence[State] = (), model: str | Sequence[str] = (), page: int = 20
    ) -> Feed[Job, None]:
        """Your jobs, newest first, fetched page by page as you go on.

        Args:
            state: only those in one of these states.
            model: only those of one of these models.
            page: how many are fetched at once, 1 to 100.
        """
        return flows.jobs(_several(state), _several(model), page, self._line)

    @answered
    def cancel(self, job: Job | str) -> Flow[Job]:
        """Cancels a job; raises Conflict if it has ended."""
        return flows.read(calls.cancel(id_of(job)), self._line, Job.of)

    @emitted
    def events(self, job: Job | str, *, previews: bool = False, last_id: str | None = None) -> Feed[Event, Job]:
        """The job's events until it has ended. A lost connection is made again, and no event is missed.

        Args:
            job: or its id.
            previews: whether pictures of the denoised estimates come too.
            last_id: `id` of the last event that was seen before, to go on after it.
        """
        return flows.events(id_of(job), previews, last_id, self._line)

    @emitted
    def follow(self, job: Job | str, *, previews: bool = False) -> Feed[Event, Job]:
        """The same from the beginning; where the service has no events, its progress by asking again and again."""
        return flows.follow(id_of(job), previews, self._line)

    @answered
    def wait(self, job: Job | str, timeout: float | None = None) -> Flow[Job]:
        """The job once it is finished.

        Args:
            job: or its id.
            timeout: seconds after which WaitedTooLong is raised; the job goes on.

        Raises:
            JobFailed: it failed or was cancelled.
        """
        return flows.wait(job, timeout, self._line)

    @answered
    def grid(self, job: Job | str, *, columns: int | None = None, padding: int = 2, scale: int = 2) -> Flow[Image]:
        """All images of a finished job in one picture."""
        call = calls.view(id_of(job), "grid.png", {"columns": columns, "padding": padding, "scale": scale})
        return flows.content(call, self._line, pictures.decode)

    @answered
    def image(self, job: Job | str, index: int) -> Flow[Image]:
        """One image of a finished job."""
        return flows.content(calls.view(id_of(job), f"images/{index}.png", {}), self._line, pictures.decode)

    @answered
    def arrays(self, job: Job | str) -> Flow[np.ndarray]:
        """All images of a finished job: uint8 [count, height, width, channels]."""
        return flows.content(calls.view(id_of(job), "samples.npz", {}), self._line, pictures.arrays)

    @answered
    def view(self, /, job: Job | str, name: str, **parameters: Any) -> Flow[bytes]:
        """A file of a finished job, as the service draws it.

        Args:
            job: or its id.
            name: grid.png, samples.npz, images.zip, animation.webp, animation.gif, filmstrip.png, images/0.png, ...
            parameters: of the query, such as columns=8.
        """
        return flows.content(calls.view(id_of(job), name, parameters), self._line, bytes)

    @answered
    def models(self) -> Flow[list[Model]]:
        """What can be sampled."""
        return flows.read(calls.get("models"), self._line, lambda cards: [Model.of(card) for card in cards])

    @answered
    def model(self, name: str, version: int | None = None) -> Flow[Model]:
        """One model, the newest version of it by default."""
        return flows.read(calls.model(name, version), self._line, Model.of)

    @answered
    def samplers(self) -> Flow[list[Sampler]]:
        """In which ways images can be made."""
        return flows.read(calls.get("samplers"), self._line, lambda found: [Sampler.of(one) for one in found])

    @answered
    def unready(self) -> Flow[str | None]:
        """Why the service would take no job now, such as that no worker is alive; None if it would."""
        return flows.unready()
