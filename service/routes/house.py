"""/workers and /samplers: who works, on how much, and in which ways images can be made."""

from functools import cache
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from models.samplers import sampler
from models.samplers.settings import SAMPLERS
from service.answering.problems import responses
from service.context import InContext
from service.routes.threaded import ThreadedRoute
from worker.queue.jobs import Depth, WorkerStatus

router = APIRouter(tags=["house"], route_class=ThreadedRoute)


class WorkersView(BaseModel):
    """Who works, and on how much."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "workers": [
                        {
                            "name": "c503f53c29e345d4826ddb51eee2c36b",
                            "device": "cuda",
                            "models": ["mnist"],
                            "arithmetics": {"mnist": "eager float32 on NVIDIA H200"},
                            "only": None,
                            "lacks": [],
                            "slots": 256,
                            "slots_active": 64,
                            "image_steps_per_second": 20000.0,
                            "last_seen": "2026-01-02T03:04:05Z",
                        }
                    ],
                    "queue": {"jobs": 1, "image_steps": 2240, "oldest_age_seconds": 0.5},
                }
            ]
        }
    )

    workers: list[WorkerStatus]
    queue: Depth


class Parameter(BaseModel):
    """A setting of a sampler."""

    name: str
    type: str = Field(description="integer, number or boolean; or array, of numbers.")
    default: Any = Field(description="Null: from the model's card, or computed.")
    minimum: float | None
    maximum: float | None
    description: str


class Sampler(BaseModel):
    """A way to make images."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "heun",
                    "title": "Heun's method",
                    "description": "Heun's method on the probability-flow equation.",
                    "needs_known": False,
                    "parameters": [
                        {
                            "name": "levels",
                            "type": "integer",
                            "default": 18,
                            "minimum": 1,
                            "maximum": 100000,
                            "description": "Number of noise levels.",
                        }
                    ],
                }
            ]
        }
    )

    name: str
    title: str
    description: str
    needs_known: bool = Field(description="Whether it is only for images of which something is known.")
    parameters: list[Parameter]


@router.get(
    "/workers", operation_id="listWorkers", summary="Who works, and what waits", responses=responses("unavailable")
)
def workers(context: InContext) -> WorkersView:
    """The workers that are alive, and what waits for them."""
    return WorkersView(workers=context.queue.worker_statuses(), queue=context.queue.depth())


@router.get(
    "/samplers",
    operation_id="listSamplers",
    summary="The samplers and their settings",
    response_model=list[Sampler],
)
async def samplers() -> Response:
    """The samplers, and what each can be told."""
    return Response(_samplers(), media_type="application/json")


@cache
def _samplers() -> bytes:
    """Written down once, since that takes some milliseconds."""
    return TypeAdapter(list[Sampler]).dump_json([_described(kind) for kind in SAMPLERS])


def _described(kind: type[sampler.Sampler]) -> Sampler:
    schema = kind.model_json_schema()
    properties = {name: field for name, field in schema["properties"].items() if name != "name"}
    return Sampler(
        name=kind.known_as(),
        title=kind.title,
        description=schema["description"],
        needs_known=kind.needs_known,
        parameters=[_parameter(name, field) for name, field in properties.items()],
    )


def _parameter(name: str, schema: dict[str, Any]) -> Parameter:
    """A parameter from its JSON schema, which allows null for what is left out."""
    (value,) = [option for option in schema["anyOf"] if option["type"] != "null"]
    number = value.get("items", value)  # of a list, its numbers are bounded
    return Parameter(
        name=name,
        type=value["type"],
        default=schema.get("default"),
        minimum=number.get("minimum", number.get("exclusiveMinimum")),
        maximum=number.get("maximum", number.get("exclusiveMaximum")),
        description=schema.get("description") or sampler.SHARED[name],
    )
