"""What commands that ask for images share: their options, following the job, and its images."""

import inspect
import json
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from cli import terminal
from cli.connection import (
    CANCELLED,
    LOCAL,
    PATIENCE,
    USAGE,
    ApiKey,
    Json,
    Patient,
    Server,
    model_names,
    print_json,
    sampler_names,
    service,
)
from cli.console import err, fail
from cli.output import STDOUT, Output
from cli.signals import handle
from scoreserve import Ask, Client, Conflict, Ended, Fit, Job, JobFailed, Patience, Progress, ScoreserveError, Urgency

Columns = Annotated[int | None, typer.Option("--columns", metavar="<int>", min=1, help="Images in a row.")]
Scale = Annotated[
    int, typer.Option("--scale", metavar="<int>", min=1, max=16, help="Factor by which each pixel is repeated.")
]
Fitting = Annotated[
    Fit | None,
    typer.Option("--fit", help="What to do with a picture of another size than the model's; error by default."),
]
Show = Annotated[
    bool | None,
    typer.Option(
        "--show/--no-show",
        help="Show the images in the terminal; by default where it can (kitty, iTerm2, sixel).",
        show_default=False,
    ),
]


@dataclass
class Asking:
    """What every command that asks for images can be told: each field is an option of it."""

    out: Annotated[
        Path,
        typer.Option(
            help="The file to write: a grid (.png), all images (.npz, .zip), or with --frames the annealing "
            "(.webp, .gif). One that is there is overwritten. - is standard output."
        ),
    ]
    count: Annotated[int, typer.Option(metavar="<int>", min=1, help="How many images.")] = 16
    model: Annotated[
        str | None,
        typer.Option(help="Name of a model; the service's default model by default.", autocompletion=model_names),
    ] = None
    seed: Annotated[int | None, typer.Option(metavar="<int>", min=0, help="Drawn at random by default.")] = None
    sampler: Annotated[
        str | None,
        typer.Option(
            help='One of `scoreserve samplers`, or its settings as JSON: \'{"name": "heun", "levels": 10}\'.',
            autocompletion=sampler_names,
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option(help="The class of all images, its index or its name; `scoreserve models NAME` lists them."),
    ] = None
    labels: Annotated[
        str | None, typer.Option(metavar="<label,label,...>", help="Those of image 0, 1 and so on, repeated.")
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="<weight>",
            min=0,
            help="How far images are led towards their class, by default as the model's card has it; 1 is not at all, "
            "more costs twice.",
        ),
    ] = None
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="<sigma> <sigma>", help="The lowest and the highest noise level that is guided."),
    ] = None
    priority: Annotated[Urgency | None, typer.Option(help="Order among your own jobs.")] = None
    deadline: Annotated[
        float | None, typer.Option(metavar="<seconds>", min=0, help="Refuse or stop a job that takes longer.")
    ] = None
    frames: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, max=64, help="Snapshots of the annealing to keep.")
    ] = None
    filmstrip: Annotated[
        bool, typer.Option("--filmstrip", help="With --frames: the PNG has a row an image and a column a snapshot.")
    ] = False
    columns: Columns = None
    scale: Scale = 2
    show: Show = None
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Or print the job's id and end at once.")] = True
    patience: Patient = PATIENCE.seconds
    as_json: Json = False
    server: Server = LOCAL
    api_key: ApiKey = None

    def run(self, submit: Callable[[Client, Ask], Job]) -> None:
        """Asks, and delivers the images if they are waited for.

        Args:
            submit: asks a client, with what the options say.
        """
        ask: Ask = {
            "model": self.model,
            "count": self.count,
            "seed": self.seed,
            "sampler": sampler_settings(self.sampler),
            "label": self.label,
            "labels": None if self.labels is None else [label.strip() for label in self.labels.split(",")],
            "guidance": self.guidance,
            "guidance_interval": self.guidance_interval,
            "priority": self.priority,
            "deadline_seconds": self.deadline,
            "frames": self.frames,
        }
        output = Output.of(self.out, self.columns, self.scale, self.frames, self.filmstrip)
        how = protocol(self.show, self.as_json, self.out) if self.wait else None
        with service(self.server, self.api_key, self.patience) as client:
            job = self._submitted(client, ask, submit)
            if self.wait:
                err.print(f"job {job.id}", highlight=False)
                deliver(client, job, output, how, self.as_json)
            elif self.as_json:
                print_json(job.data)
            else:
                typer.echo(job.id)

    def _submitted(self, client: Client, ask: Ask, submit: Callable[[Client, Ask], Job]) -> Job:
        """The job, accepted. Who stops the command before the answer is there gets what was accepted cancelled."""
        ask = {**ask, "idempotency_key": secrets.token_hex(16)}
        try:
            with _stopped_by_signals():
                return submit(client, ask)
        except KeyboardInterrupt as interrupt:
            options: Any = {"api_key": self.api_key, "timeout": 2, "patience": Patience(attempts=1)}
            with suppress(ScoreserveError), Client(self.server, **options) as quick:
                quick.cancel(submit(quick, ask))  # the same job, by its key
            fail("stopped before the service had answered; if it accepted the job, it is cancelled", _code(interrupt))


def asks(out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command, whose last parameter is `asking`, the fields of `Asking` as options in place of it.

    Args:
        out: the file that is written by default.
    """

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=Path(out) if field.name == "out" else field.default,
                annotation=field.type,
            )
            for field in fields(Asking)
        ]
        names = [field.name for field in fields(Asking)]

        @wraps(command)
        def run(**given: Any) -> None:
            command(asking=Asking(**{name: given.pop(name) for name in names}), **given)

        own = inspect.signature(command)
        parameters = [parameter for name, parameter in own.parameters.items() if name != "asking"]
        run.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
        return run

    return with_options


def content(path: Path) -> bytes:
    """Of the file of a picture."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", USAGE)


def sampler_settings(option: str | None) -> str | dict[str, Any] | None:
    """The sampler of an option: a name, or settings as JSON."""
    if option is None or not option.startswith("{"):
        return option
    try:
        settings: dict[str, Any] = json.loads(option)
    except (ValueError, RecursionError) as error:
        fail(f"--sampler is not JSON: {error}", USAGE)
    return settings


def protocol(show: bool | None, as_json: bool, out: Path) -> terminal.Protocol | None:
    """How images are shown, or None; ends the command if they must be shown and cannot."""
    if out == STDOUT and (as_json or show):
        fail("--out - leaves no room on standard output for --json and --show: name a file", USAGE)
    if show is False or (not show and (as_json or out == STDOUT)):
        return None
    found = terminal.protocol()
    if show and found is None:
        fail("--show: this terminal shows no pictures; those that do speak kitty's, iTerm2's or sixel graphics", USAGE)
    return found


def deliver(client: Client, job: Job, output: Output, show: terminal.Protocol | None, as_json: bool) -> None:
    """Follows a job to its end, writes its images and shows them."""
    ended = _follow(client, job)
    if as_json:
        print_json(ended.data)
    if ended.state != "finished":
        raise JobFailed(ended)
    content = client.view(ended, output.view, **output.parameters)
    output.write(content)
    err.print(
        f"{output.path}: {ended.count} image{'s' * (ended.count != 1)} of {ended.model}, version {ended.version}, "
        f"seed {ended.seed}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if show is not None:
        terminal.show(content if output.is_png else client.view(ended, "grid.png"), show)


def duration(seconds: float) -> str:
    """Such as 0:05, 12:30 and 1:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _follow(client: Client, job: Job) -> Job:
    """Shows a job's progress until it has ended; Ctrl-C, SIGTERM and SIGHUP cancel it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    try:
        with _stopped_by_signals(), Bar(*columns, console=err) as bar:
            task = bar.add_task(job.state, total=job.image_steps, completed=job.image_steps_done, left="")
            for event in client.follow(job):
                match event:
                    case Progress():
                        what = _place(event.queue_position) if event.state == "queued" else event.state
                        left = "" if event.eta_seconds is None else f"{duration(event.eta_seconds)} left"
                        bar.update(task, description=what, completed=event.image_steps_done, left=left)
                    case Ended(ended):
                        bar.update(task, description=ended.state, completed=ended.image_steps_done, left="")
                        job = ended
    except KeyboardInterrupt as interrupt:
        code = _code(interrupt)
        try:
            client.cancel(job)
        except Conflict:
            fail(f"job {job.id} had ended before it could be cancelled", code)
        fail(f"job {job.id} is cancelled", code)
    return job


class Stopped(KeyboardInterrupt):
    """A signal says that the command should end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.code = 128 + number  # as a shell has it


def _code(interrupt: KeyboardInterrupt) -> int:
    return interrupt.code if isinstance(interrupt, Stopped) else CANCELLED


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `Stopped`, unless this process was started to ignore them."""

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handle(*before, by=stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _place(position: int | None) -> str:
    return f"queued behind {position}" if position else "queued"
