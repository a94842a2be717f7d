"""What is wrong with a value, for people: of what pydantic finds, what it is, what is allowed, and what was meant."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

BODY = "the body"  # what all of it is called, of an HTTP request
LONGEST = 60  # characters of a value that are shown
LONGEST_ECHO = 100  # characters of anything that somebody else wrote
MOST_FAULTS = 20  # that are told of one value: it may have as many as it has parts
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
PLAINLY = {  # what pydantic says in words of Python
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid dictionary": "an object",
    "True": "true",
    "False": "false",
}
OF_CONTEXT = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one value.

    Args:
        path: to it, of fields and indices.
        reason: what is wrong.
        allowed: what is allowed, as part of a sentence; None where there is nothing to say.
    """

    path: tuple[str | int, ...]
    reason: str
    allowed: str | None

    def __str__(self) -> str:
        if self.allowed is None or "did you mean" in self.reason:
            return self.reason
        if re.fullmatch(r"\S+ to \S+", self.allowed):
            return f"{self.reason}; {self.allowed} are allowed"
        return f"{self.reason}; allowed: {self.allowed}"


def faults(error: ValidationError, model: type[BaseModel] | None = None, whole: str = BODY) -> list[Fault]:
    """What is wrong, of an error in validating this model: the first of it, where it is much.

    Args:
        error: as pydantic raised it.
        model: what was validated.
        whole: what a person calls all of it.
    """
    found = error.errors(include_url=False)[:MOST_FAULTS]
    return [fault(one, _schema(model) if model else {}, whole) for one in found if not _follows(one)]


def in_one_line(error: ValidationError, model: type[BaseModel] | None = None, whole: str = BODY) -> str:
    """What is wrong, with the way to it where that is inside of something: as `faults`, for a line of text."""
    said = []
    for one in faults(error, model, whole):
        names = [step for step in one.path if isinstance(step, str)]
        inside = f"{'.'.join(names[:-1])}: " if names[:-1] else ""
        said.append(f"{inside}{one}")
    return " ".join("; ".join(said).split())


def shortened(text: str, most: int = LONGEST_ECHO) -> str:
    """A text of somebody else's, which is told back to them: all of it if it is short, else how it begins."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def fault(  # noqa: PLR0911 (a case each)
    error: Mapping[str, Any], schema: Mapping[str, Any] | None = None, whole: str = BODY
) -> Fault:
    """What is wrong, of one of a ValidationError's errors.

    Args:
        error: as pydantic has it; `loc` leads to the value.
        schema: JSON schema of what was validated, which tells more of what is allowed.
        whole: what a person calls all of it.
    """
    path = tuple(shortened(step, LONGEST) if isinstance(step, str) else step for step in error["loc"])
    steps, at = _follow(path, schema or {}, schema or {})
    name, value, context = _name(steps) or whole, error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            violated = {OF_CONTEXT[key]: bound for key, bound in context.items() if key in OF_CONTEXT}
            shown = value if isinstance(value, str) else _shown(name, value)  # a form's numbers are text
            return Fault(steps, f"{name} is {shortened(shown)}", _range({**violated, **_bounds(at)}))
        case "union_tag_invalid":
            options = re.findall(r"'([^']*)'", str(context["expected_tags"]))
            return Fault(steps, _none(name, context["tag"], options), ", ".join(options))
        case "union_tag_not_found":
            return Fault(steps, f"{name} has no {str(context['discriminator']).strip(chr(39))}", None)
        case "literal_error" | "enum" if isinstance(value, str):
            options = re.findall(r"'([^']*)'", str(context["expected"]))
            return Fault(steps, _none(name, value, options), " or ".join(options))
        case "extra_forbidden":
            fields = list(_parent(path, schema or {}))
            meant = _meant(name, fields)
            return Fault(steps, f"there is no field {name}{meant}", ", ".join(fields) or None)
        case "missing":
            return Fault(steps, f"{name} is missing", None)
        case "value_error":
            why = str(error["msg"]).removeprefix("Value error, ")
            if isinstance(value, Mapping):  # of fields that do not go together
                return Fault(steps, f"{name}: {why}" if steps else why, None)
            return Fault(steps, f"{name} is {_shown(name, value)}: {why}", None)
        case "string_pattern_mismatch":
            if digits := re.fullmatch(r"\^\[0-9a-f\]\{(\d+)\}\$", context["pattern"]):
                return Fault(steps, f"{name} is {_shown(name, value)}", f"{digits[1]} hexadecimal digits")
            examples = at.get("examples") or [None]
            like = f"what fits {context['pattern']}"
            allowed = f"{like}, such as {examples[0]}" if examples[0] else like
            return Fault(steps, f"{name} is {_shown(name, value)}", allowed)
        case "string_too_long" | "string_too_short" | "too_long" | "too_short":
            unit = "characters" if str(error["type"]).startswith("string") else "items"
            most, least = context.get("max_length"), context.get("min_length")
            allowed = f"at most {most} {unit}" if most is not None else f"at least {least} {unit}"
            length = len(value) if isinstance(value, str | list | tuple) else context.get("actual_length", "other")
            return Fault(steps, f"{name} has {length} {unit}", allowed)
    said = shortened(re.split(", unable to|, got", str(error["msg"]))[0], LONGEST + LONGEST_ECHO)
    if not said.startswith("Input should be "):
        return Fault(steps, f"{name}: {said}", None)
    allowed = said.removeprefix("Input should be ")
    allowed = PLAINLY.get(allowed.partition(" or instance of")[0], allowed)
    of_range = _range(_bounds(at)) if allowed.endswith("number") else None
    return Fault(steps, f"{name} is {_shown(name, value)}", f"{allowed}, {of_range}" if of_range else allowed)


def _follows(error: Mapping[str, Any]) -> bool:
    """Whether something is wrong only since something else is, which is told too: a list is too short without what is
    wrong in it, or a default depends on it."""
    if error["type"] == "default_factory_not_called":
        return True
    return error["type"] == "too_short" and bool(len(error["input"]) >= error["ctx"]["min_length"])


def suggestion(word: str, options: Iterable[str]) -> str:
    """`; did you mean heun?` of the likeliest option, or nothing where none is likely."""
    return _meant(word, list(options))


def _none(name: str, word: Any, options: list[str]) -> str:
    return f"there is no {name} {shortened(str(word), LONGEST)}{_meant(str(word), options)}"


def _meant(word: str, options: list[str]) -> str:
    close = get_close_matches(word.lower(), options, 1, 0.6) if len(word) <= LONGEST else []
    return f"; did you mean {close[0]}?" if close else ""


def _name(path: tuple[str | int, ...]) -> str:
    """What a person calls it: the field, with its index in a list; nothing for all there is."""
    names = [step for step in path if isinstance(step, str)]
    index = f" {path[-1]}" if path and isinstance(path[-1], int) else ""
    return f"{names[-1]}{index}" if names else ""


def _shown(name: str, value: Any) -> str:
    if "secret" in name or "password" in name:
        return "not shown"
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case bool() | None | int() | float():
            return shortened(json.dumps(value), LONGEST)
    text = repr(re.sub(r"(://[^\s:/@]*:)\S*@", r"\1***@", str(value)))  # an address may hold a password
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...'"


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in (schema, *schema.get("anyOf", ())):
        found |= {key: option[key] for key in BOUNDS if key in option}
    return found


def _range(bounds: Mapping[str, Any]) -> str | None:
    if "minimum" in bounds and "maximum" in bounds:
        return f"{_number(bounds['minimum'])} to {_number(bounds['maximum'])}"
    words = dict(zip(BOUNDS, ("at least", "above", "at most", "below"), strict=True))
    return ", ".join(f"{words[key]} {_number(bounds[key])}" for key in BOUNDS if key in bounds) or None


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@lru_cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _follow(
    path: tuple[str | int, ...], at: Mapping[str, Any], whole: Mapping[str, Any]
) -> tuple[tuple[str | int, ...], Mapping[str, Any]]:
    """The path without the words that pydantic puts in for members of a union, and the schema at its end."""
    steps: list[str | int] = []
    for step in path:
        options = _options(at, whole)
        tagged: dict[Any, str] = next(
            (one["discriminator"]["mapping"] for one in options if "discriminator" in one), {}
        )
        if step in tagged:
            at = _resolved({"$ref": tagged[step]}, whole)
            continue
        steps.append(step)
        found = [one["properties"][step] for one in options if step in one.get("properties", {})]
        items = [one["items"] for one in options if isinstance(step, int) and isinstance(one.get("items"), dict)]
        at = _resolved((found or items or [{}])[0], whole)
    return tuple(steps), at


def _parent(path: tuple[str | int, ...], schema: Mapping[str, Any]) -> Iterable[str]:
    """The fields that there are where a field is that there is not."""
    options = _options(_follow(path[:-1], schema, schema)[1], schema)
    return (name for one in options for name in one.get("properties", {}))


def _options(at: Mapping[str, Any], whole: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [at, *(_resolved(one, whole) for one in at.get("anyOf", ()))]


def _resolved(at: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = at.get("$ref")
    return whole.get("$defs", {}).get(str(reference).rpartition("/")[2], {}) if reference else at
