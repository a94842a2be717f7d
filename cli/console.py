"""What every command says in the same way."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

err = Console(stderr=True)
out = Console()
S = TypeVar("S", bound="BaseSettings")


def fail(message: str, code: int = 1) -> NoReturn:
    """Ends the command with one clear line on standard error."""
    err.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def settings(kind: type[S], options: Mapping[str, Any]) -> S:
    """Settings from the environment and from the options that were given; one clear line if they are impossible."""
    from pydantic import ValidationError  # noqa: PLC0415 (only services and workers have it)

    from models.sentences import faults  # noqa: PLC0415
    from worker.queue.server import without_password  # noqa: PLC0415

    try:
        return kind(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fail(without_password("; ".join(map(str, faults(error, kind)))), code=2)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on standard output, a line a row, never folded: a line is for `grep` too."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
