"""The HTTP application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service import docs, links
from service.access.auth import of_operators, public
from service.answering import problems
from service.answering.addresses import PREFIX
from service.answering.job_view import JobsView, JobView
from service.answering.problems import ProblemDetails
from service.asking.schemas import ColorizeBody, InpaintBody, SampleBody, UpscaleBody
from service.context import Context
from service.forwarded import ForwardedMiddleware
from service.middleware import HeadMiddleware, RequestMiddleware
from service.routes import completions, events, health, house, jobs, models, operator, pages, playground, samples
from service.settings import ServiceSettings

DESCRIPTION = """Samples from score-based generative models: image grids and inpainting.

A request becomes a job; `GET /jobs/{id}` says how far it is. An image's pixels depend on the model, the sampler, the
seed and the image's number alone: the same request gives the same bytes.
"""

# What pages of other web sites may send and read, if SCORESERVE_CORS_ORIGINS names them.
ASKED_IN_HEADERS = [
    "Authorization",
    "Client-Id",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Prefer",
    "Range",
]
TOLD_IN_HEADERS = [
    "Accept-Ranges",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
]


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application for these settings. It starts without Redis, and says in /readyz that it is missing."""
    context = Context.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        PREFIX.set(settings.root_path)  # of what goes out without a request
        pulse = asyncio.create_task(context.pulse.feel())
        listening = asyncio.create_task(context.endings.listen())
        webhooks = context.webhooks()
        delivering = asyncio.create_task(webhooks.run())
        counting = asyncio.create_task(context.usage.run())
        yield
        webhooks.stop()
        await asyncio.wait([delivering])
        await context.events.aclose()
        counting.cancel()
        await asyncio.wait([counting])
        context.pulse.stop()
        listening.cancel()
        await asyncio.wait([pulse, listening])
        await context.async_redis.aclose()
        await context.jobs.redis.connection.aclose()
        context.queue.connection.close()
        await context.uploads.crew.aclose()
        await context.drawings.aclose()
        context.archives.close()

    app = FastAPI(
        title="scoreserve",
        version=version("scoreserve"),
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # which docs has, made once
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.add_middleware(HeadMiddleware)  # inside the next
    app.add_middleware(RequestMiddleware, context=context)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=ASKED_IN_HEADERS,
            expose_headers=TOLD_IN_HEADERS,
        )
    app.add_middleware(ForwardedMiddleware, settings=settings)
    problems.install(app)
    docs.install(app)
    for room in (samples, completions, jobs, events, models, house, operator, health, pages, playground):
        app.include_router(room.router)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Adds to the OpenAPI document what FastAPI does not: problems, a body parsed by hand, examples, links.

    It is made once, when it is first asked for: that takes a second in which nobody else is answered.
    """
    plain = app.openapi

    @cache
    def once() -> dict[str, Any]:
        document = plain()
        template = "#/components/schemas/{model}"
        for model in (ProblemDetails, SampleBody, InpaintBody, UpscaleBody, ColorizeBody):
            schema = model.model_json_schema(ref_template=template)
            document["components"]["schemas"].update(schema.pop("$defs", {}))
            document["components"]["schemas"][model.__name__] = schema
        for view in (JobView, JobsView, *operator.VIEWS):  # of whose examples FastAPI leaves out what is null
            document["components"]["schemas"][view.__name__]["examples"] = view.model_json_schema()["examples"]
        for schema in document["components"]["schemas"].values():
            for field in schema.get("properties", {}).values():
                if "discriminator" in field:  # generators of clients know no default of one of several schemas
                    field.pop("default", None)
        for operation in (one for path in document["paths"].values() for one in path.values()):
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":  # see middleware: one that is empty is left out
                    parameter["allowEmptyValue"] = True
        _describe_errors(document)
        links.describe(document)
        return document

    def described() -> dict[str, Any]:
        return {**once(), "servers": [{"url": PREFIX.get()}]} if PREFIX.get() else once()

    app.openapi = described  # type: ignore[method-assign]


def _describe_errors(document: dict[str, Any]) -> None:
    """Adds the problems that any operation can answer with, and the key that it takes if it is not open to all."""
    description = "A key, as `scoreserve keys create` prints it. A service without keys needs none."
    scheme = {"type": "http", "scheme": "bearer", "description": description}
    document["components"]["securitySchemes"] = {"key": scheme}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            codes = ["internal", "misdirected"]
            if method != "get":
                codes += ["another-origin", "request-timeout", "too-large"]
            if not public(path):
                operation["security"] = [{"key": []}] if of_operators(path) else [{"key": []}, {}]
                codes += ["unauthorized", "forbidden", "rate-limited", "invalid", "unavailable"]
            if "requestBody" in operation:
                codes += ["quota-exceeded", "storage-exceeded"]
            described = {str(status): response for status, response in problems.responses(*codes).items()}
            operation["responses"] = dict(sorted((described | operation["responses"]).items()))
