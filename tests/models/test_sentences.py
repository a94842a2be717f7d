"""Sentences about values that cannot be."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.sentences import faults, in_one_line, suggestion


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["square"] = "square"
    side: int = Field(1, ge=1, le=9)


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Drawing(BaseModel):
    """What is tried."""

    model_config = ConfigDict(extra="forbid")
    count: int = Field(1, ge=1, le=64)
    share: float | None = Field(None, gt=0, lt=1)
    least: int = Field(0, ge=0)
    colour: Literal["red", "green"] = "red"
    colour_of_ink: str = Field("000000", pattern="^[0-9a-f]{6}$")
    name: str = Field("a", max_length=3, pattern="^[a-z]+$", examples=["abc"])
    tags: list[int] = Field([], max_length=2)
    parts: tuple[int, ...] = Field((1,), min_length=1, fail_fast=True)
    shape: Annotated[Square | Circle, Field(discriminator="kind")] | None = None
    webhook_secret: str = Field("", max_length=3)
    even: int = 0
    done: bool = False
    most: int = Field(default_factory=lambda given: given["count"])  # cannot be made of what is wrong

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("an even number is needed")
        return value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 65}, "count is 65; 1 to 64 are allowed"),
        ({"count": 0}, "count is 0; 1 to 64 are allowed"),
        ({"count": "65"}, "count is 65; 1 to 64 are allowed"),
        ({"count": "many"}, "count is 'many'; allowed: a whole number, 1 to 64"),
        ({"count": 1.5}, "count is 1.5; allowed: a whole number, 1 to 64"),
        ({"count": {}}, "count is an object; allowed: a whole number, 1 to 64"),
        ({"share": 1}, "share is 1; allowed: above 0, below 1"),
        ({"least": -1}, "least is -1; allowed: at least 0"),
        ({"colour": "gren"}, "there is no colour gren; did you mean green?"),
        ({"colour": "blue"}, "there is no colour blue; allowed: red or green"),
        ({"colour": 5}, "colour is 5; allowed: 'red' or 'green'"),
        ({"name": "A"}, "name is 'A'; allowed: what fits ^[a-z]+$, such as abc"),
        ({"colour_of_ink": "red"}, "colour_of_ink is 'red'; allowed: 6 hexadecimal digits"),
        ({"name": "aaaa"}, "name has 4 characters; allowed: at most 3 characters"),
        ({"tags": [1, 2, 3]}, "tags has 3 items; allowed: at most 2 items"),
        ({"tags": [1, "x"]}, "tags 1 is 'x'; allowed: a whole number"),
        ({"parts": ["x"]}, "parts 0 is 'x'; allowed: a whole number"),
        ({"parts": []}, "parts has 0 items; allowed: at least 1 items"),
        ({"tags": "x"}, "tags is 'x'; allowed: a valid list"),
        ({"cuont": 3}, "there is no field cuont; did you mean count?"),
        ({"shape": {"kind": "sqare"}}, "there is no shape sqare; did you mean square?"),
        ({"shape": {}}, "shape has no kind"),
        ({"shape": {"kind": "square", "side": 10}}, "side is 10; 1 to 9 are allowed"),
        ({"shape": {"kind": "square", "sid": 1}}, "there is no field sid; did you mean side?"),
        ({"shape": {"kind": "circle"}}, "radius is missing"),
        ({"shape": {"kind": "circle", "radius": 0}}, "radius is 0; allowed: above 0"),
        ({"webhook_secret": "geheim"}, "webhook_secret has 6 characters; allowed: at most 3 characters"),
        ({"webhook_secret": 12345}, "webhook_secret is not shown; allowed: a valid string"),
        ({"even": 3}, "even is 3: an even number is needed"),
        ({"name": 5, "count": 0}, "count is 0; 1 to 64 are allowed; name is 5; allowed: a valid string"),
        ({"done": "x" * 500}, f"done is '{'x' * 55}...'; allowed: a valid boolean"),
    ],
)
def test_what_is_said(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Drawing.model_validate(given)
    found = faults(raised.value, Drawing)
    assert "; ".join(map(str, found)) == said
    assert all(
        one.path[0] == name
        for one, name in zip(found, sorted(given, key=list(given).index), strict=False)
        if len(given) == 1
    )
    for one in faults(raised.value):  # without the schema less is known, and the same is said
        assert one.reason.partition("; did")[0] in said


def test_suggestions() -> None:
    assert suggestion("minst", ["mnist", "cifar10"]) == "; did you mean mnist?"
    assert suggestion("Heun", ["heun"]) == "; did you mean heun?"
    assert suggestion("x", ["mnist"]) == ""


class Gallery(BaseModel):
    """What drawings hang in."""

    drawings: list[Drawing]
    flat: Literal[False] = False
    first: Drawing | None = None

    @model_validator(mode="before")
    @classmethod
    def _go_together(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("first") and not value.get("drawings"):
            raise ValueError("first needs\ndrawings")
        return value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"drawings": [], "first": {"colour": "gren"}}, "first needs drawings"),
        ({"drawings": [{"count": 65}]}, "drawings: count is 65; 1 to 64 are allowed"),
        ({"drawings": [{"tags": [1, "x"]}]}, "drawings: tags 1 is 'x'; allowed: a whole number"),
        ({"drawings": [{"shape": {"kind": "circle"}}]}, "drawings.shape: radius is missing"),
        ({"drawings": [{}], "flat": True}, "flat is true; allowed: false"),
        ({"drawings": [{}], "first": 5}, "first is 5; allowed: an object"),
        ({}, "drawings is missing"),
        ("words", "the file is 'words'; allowed: an object"),
        (
            {"drawings": [{"cuont": 1}, {"count": 0}]},
            "drawings: there is no field cuont; did you mean count?; drawings: count is 0; 1 to 64 are allowed",
        ),
    ],
)
def test_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Gallery.model_validate(given)
    assert in_one_line(refused.value, Gallery, "the file") == said
    assert "\n" not in said
