"""What cannot be on a command line, in the words that the service has for it."""

import re
from typing import Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """The commands; what is wrong with an option of any is told as of a field of a request."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command, whose options are read on the way."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _sentence(error)
            raise


def _sentence(error: typer.BadParameter) -> str:
    """What is wrong: typer says it in pydantic's words where it is pydantic that found it, else in its own."""
    found: Any = error.__cause__
    option = error.param
    if option is None or not hasattr(found, "errors"):
        return error.message
    from models.sentences import fault  # noqa: PLC0415 (pydantic)

    first = {**found.errors()[0], "loc": ()}
    if named := re.search(r" is not one of (.+)\.$", first["msg"]):  # which typer asks itself
        first |= {"type": "enum", "ctx": {"expected": named[1]}}
    bounds = {"minimum": getattr(option, "min", None), "maximum": getattr(option, "max", None)}
    known = {word: bound for word, bound in bounds.items() if bound is not None}
    names = [name.strip("-") for name in option.opts if name.startswith("--")]
    return str(fault(first, known, (names or [option.name or "it"])[0]))
