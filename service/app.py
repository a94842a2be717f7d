"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service import problems
from service.context import Context
from service.middleware import HeadMiddleware, RequestMiddleware
from service.problems import ProblemDetails
from service.routes import events, health, house, jobs, models, playground, samples
from service.schemas import InpaintBody
from service.settings import ServiceSettings

DESCRIPTION = """Samples from score-based generative models: image grids and inpainting.

A request becomes a job; `GET /jobs/{id}` says how far it is. An image's pixels depend on the model, the sampler, the
seed and the image's number alone: the same request gives the same bytes.
"""


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application for these settings. It starts without Redis, and says in /readyz that it is missing."""
    context = Context.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await context.events.aclose()
        await context.async_redis.aclose()
        context.queue.connection.close()

    app = FastAPI(title="scoreserve", version=version("scoreserve"), description=DESCRIPTION, lifespan=lifespan)
    app.state.context = context
    app.add_middleware(HeadMiddleware)  # inside the next
    app.add_middleware(RequestMiddleware, context=context)
    problems.install(app)
    for room in (samples, jobs, events, models, house, health, playground):
        app.include_router(room.router)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Adds to the OpenAPI document what FastAPI cannot see: the form of a problem, and a body parsed by hand."""
    plain = app.openapi

    def described() -> dict[str, object]:
        document = plain()
        template = "#/components/schemas/{model}"
        for model in (ProblemDetails, InpaintBody):
            schema = model.model_json_schema(ref_template=template)
            document["components"]["schemas"].update(schema.pop("$defs", {}))
            document["components"]["schemas"][model.__name__] = schema
        return document

    app.openapi = described  # type: ignore[method-assign]
