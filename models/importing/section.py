"""A section of somebody's configuration."""

from pydantic import BaseModel, ConfigDict, JsonValue


class Section(BaseModel):
    """Fields that decide nothing here are kept as they are: they say how the model was trained."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue]
