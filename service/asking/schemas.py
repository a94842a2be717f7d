"""What requests look like to a client."""

from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from models.card import ModelName
from models.guidance import MAX_WEIGHT
from models.samplers import USUAL
from models.samplers.sampler import MAX_SEED
from models.samplers.settings import SamplerSettings
from models.sentences import MOST_FAULTS, OF_CONTEXT
from service.asking.pictures import Fit
from service.webhooks.addresses import LONGEST_URL
from worker.queue.priority import Priority
from worker.queue.requests import MAX_FRAMES

LONGEST_LABEL, MAX_LABELS = 200, 10_000


def _name_sampler(value: Any) -> Any:
    """Settings without a name are those of the usual sampler."""
    if isinstance(value, str):
        raise PydanticCustomError(
            "dict_type", 'Input should be an object such as {"name": "heun"}, and not its name alone'
        )
    if not isinstance(value, dict):
        return value
    return {**value, "name": USUAL} if value.get("name") is None else value


class _Body(BaseModel):
    """A request's body, in which null is the same as left out, for every field."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = {name: one for name, one in value.items() if one is not None or name not in cls.model_fields}
        if len(given) > len(cls.model_fields) + MOST_FAULTS:  # as many unknown ones as are told; each costs time
            unknown = list(islice((name for name in given if name not in cls.model_fields), MOST_FAULTS + 1))
            given = {name: given[name] for name in (*cls.model_fields, *unknown) if name in given}
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(core))
        for name, field in described["properties"].items():
            if name not in described.get("required", ()) and "anyOf" not in field:
                kind = {key: field.pop(key) for key in list(field) if key not in ("title", "description", "default")}
                field["anyOf"] = [kind, {"type": "null"}]
            for option in field.get(
                "anyOf", ()
            ):  # where a validator comes before a bound, pydantic leaves its own word
                option |= {word: option.pop(own) for own, word in OF_CONTEXT.items() if own in option}
        return described


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _label(value: Any) -> Any:
    """Refuses here what is no label: of a union pydantic says what is wrong with each of its members."""
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_index and not (isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL):
        raise PydanticCustomError("label_type", "Input should be the index of a class, from 0 on, or its name")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    return value


Whole = Annotated[int, BeforeValidator(_no_boolean)]  # a form's fields are text, so that must be taken too

Label = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)],
    BeforeValidator(_label),
]
Level = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False, strict=True)]

MAX_DEADLINE_SECONDS = 30 * 24 * 3600
PICTURE = (  # 28 x 28, and its mask
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAH0lEQVR42mNgoD9ghDFOMDAwWKBJMuHTOSo5KjlwAADwZgEoE3440gAAAABJRU5E"
    "rkJggg=="
)
MASK = "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcAQAAAABaduI5AAAAFElEQVR42mNgYP7/gYmBgYFh4AkAGPQCKbS5fe0AAAAASUVORK5CYII="
SMALL = (  # 7 x 7
    "iVBORw0KGgoAAAANSUhEUgAAAAcAAAAHCAAAAADhOQgPAAAAFElEQVR4nGNkEBERERERYRIhjQYAaKQDziUILdQAAAAASUVORK5CYII="
)


class WebhookBody(BaseModel):
    """What is called once a job has ended, with its description, signed as Standard Webhooks has it."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        max_length=LONGEST_URL,
        description="An https URL of a public host; POST is sent there.",
        examples=["https://example.com/hooks/scoreserve"],
    )
    secret: str | None = Field(
        None, max_length=128, description="`whsec_` and 24 to 64 bytes in base64; the service's own by default."
    )


class SampleBody(_Body):
    """A grid of samples. Whatever is left out comes from the model's card."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"count": 64},
                {"model": "mnist", "count": 16, "seed": 7, "sampler": {"name": "heun"}},
                {"count": 16, "sampler": {"name": "annealed_langevin", "levels": 40, "steps_per_level": 3}},
            ]
        },
    )

    model: ModelName | None = Field(None, description="Name of a model; GET /models lists them.", examples=["mnist"])
    version: Whole | None = Field(None, ge=1, description="Version of the model; the newest by default.")
    count: Whole = Field(16, ge=1, description="How many images.")
    seed: Whole | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Image i depends on the model, the sampler, its label and guidance, the seed and i alone. Drawn at "
        "random by default.",
    )
    sampler: Annotated[SamplerSettings, BeforeValidator(_name_sampler)] | None = Field(
        None,
        description="How to sample; fields left out come from the model's card. Without a name, or with null for one, "
        f"{USUAL}.",
        examples=[{"name": "heun"}],
    )
    label: Label | None = Field(
        None,
        description="The class of all images: its index among the `classes` of the model's card, or its name. By "
        "default they are of no class in particular; of a model that needs a label, of one class after another; of new "
        "images of a model that `draws_labels`, each of one that the seed draws.",
        examples=[7],
    )
    labels: tuple[Label, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_LABELS,
        fail_fast=True,  # the first that is none is told, not each of ten thousand
        description="The classes of images 0, 1 and so on, repeated when there are more images.",
        examples=[[0, 1, 2]],
    )
    guidance: Annotated[float, BeforeValidator(_number)] | None = Field(
        None,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="How far an image is led towards its class (classifier-free guidance): 1 is not at all, and more "
        "makes images plainer and more alike. A guided network evaluation costs two image-steps. By default as the "
        "card's `guidance` says of new images with a label, and not at all where it is null.",
        examples=[1.5],
    )
    guidance_interval: tuple[Level, Level] | None = Field(
        None,
        description="The lowest and the highest noise level that is guided; all by default. Those outside cost one "
        "image-step, and images are less alike.",
        examples=[[0.1, 2.0]],
    )
    frames: Whole = Field(
        0,
        ge=0,
        le=MAX_FRAMES,
        description="How many snapshots of the annealing are kept, evenly over the network evaluations, or one of each "
        "if there are fewer; the last is the result. For `animation.webp`, `animation.gif` and `filmstrip.png`.",
    )
    priority: Priority = Field(
        Priority.NORMAL,
        description="Order among your own jobs. Between clients that wait it is a weight of 8, 1 and 1/8, so none is "
        "locked out.",
    )
    deadline_seconds: Annotated[float, BeforeValidator(_number)] | None = Field(
        None,
        gt=0,
        le=MAX_DEADLINE_SECONDS,
        allow_inf_nan=False,
        description="Seconds from now within which the job must end. One that cannot make it is refused at once; one "
        "that does not is stopped and fails.",
        examples=[60],
    )
    webhook: WebhookBody | None = Field(
        None, description="Called once the job has ended, and again until it is answered with 2xx."
    )


class InpaintFields(SampleBody):
    """What is said of completions besides the picture and what is known of it."""

    fit: Fit = Field(
        Fit.ERROR,
        description="What happens to a picture that is not of the model's size: it is refused (`error`), resized to it "
        "(`resize`), or cropped to its proportions around the centre and then resized (`crop`).",
    )


class InpaintBody(InpaintFields):
    """Completions of one picture: white pixels of the mask are repainted, all others come back exactly as fitted."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"image": PICTURE, "mask": MASK, "fit": "resize", "count": 16}]}
    )

    image: str = Field(description="The picture, a base64-encoded file.")
    mask: str | None = Field(
        None,
        description="The mask, a base64-encoded picture of the same size, or already of the model's: white = repaint, "
        "black or transparent = keep. Without it, what is transparent in the picture is repainted.",
    )


class UpscaleBody(SampleBody):
    """Enlargements of one small picture: the mean of each block of a result is the given pixel."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"image": SMALL, "count": 16}]})

    image: str = Field(
        description="The picture, a base64-encoded file; both sides are the model's over the same whole number."
    )


class ColorizeBody(InpaintFields):
    """Colourings of one grey picture: the mean of a result's red, green and blue is everywhere the given value."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"image": PICTURE, "fit": "resize", "count": 16}]}
    )

    image: str = Field(description="The picture, a base64-encoded file: grey, or of equal red, green and blue.")
