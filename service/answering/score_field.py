"""The scores of a model of the plane, as the client sees them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "sigmas": [2.0, 0.01],
    "half_widths": [4.62, 0.64],
    "scores": [
        [[[1.1, 1.1], [-1.1, 1.1]], [[1.1, -1.1], [-1.1, -1.1]]],
        [[[150.0, 150.0], [-90.0, 210.0]], [[210.0, -90.0], [-150.0, -150.0]]],
    ],
}


Score = Annotated[list[float], Field(min_length=2, max_length=2)]  # what is no tuple: many tools cannot read its schema


class ScoreField(BaseModel):
    """The scores that a model of points in the plane has learnt, on a square grid at each of some noise levels."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    sigmas: list[float] = Field(description="The noise levels, descending, in [0, 1] units.")
    half_widths: list[float] = Field(description="Of the grid of each level: it is around (1/2, 1/2).")
    scores: list[list[list[Score]]] = Field(
        description="Of each level, each row of the grid from below, and each of its points from the left: the score."
    )
