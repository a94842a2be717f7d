"""/models: what can be sampled."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import TypeAdapter

from models.store import BrokenModel, ModelNotFound
from service.answering import caching, ranges
from service.answering.addresses import address
from service.answering.models import ModelView, no_version
from service.answering.problems import Problem, responses
from service.answering.score_field import ScoreField
from service.answering.views import PNG
from service.context import Context, InContext
from service.routes.threaded import ThreadedRoute

router = APIRouter(prefix="/models", tags=["models"], route_class=ThreadedRoute)

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["mnist"])]
Version = Annotated[int | None, Query(ge=1, le=10**9, description="The newest by default.")]
_VIEWS = TypeAdapter(list[ModelView])
_PNG = {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG file."}
_PART = {**_PNG, "description": "The part that was asked for (Range)."}
_KEPT = {"description": "The client has it (If-None-Match)."}


@router.get("", operation_id="listModels", summary="The newest card of every model", response_model=list[ModelView])
def models(context: InContext) -> Response:
    """The newest card of every model, and what each can do."""
    views = [ModelView.of(card) for card in context.store.cards()]
    return Response(_VIEWS.dump_json(views), media_type="application/json")  # made here, in a thread


@router.get(
    "/{name}", operation_id="getModel", summary="The card of a model", responses=responses("not-found", "invalid")
)
def model(name: Name, context: InContext, response: Response, version: Version = None) -> ModelView:
    """A model's card: image shape, noise range, classes, default sampler, how it was made, what was measured on it; and
    which samplers it can be asked for, and which not and why.

    `Link: <...>; rel="preview"` is there if the model has a picture.
    """
    try:
        card = context.store.card(name, version)
        preview = context.store.preview(name, version)
    except (ModelNotFound, BrokenModel) as error:
        raise _not_found(context, name, version) from error
    if preview is not None:
        where = address(f"/models/{name}/preview.png")
        response.headers["Link"] = f'<{where}?version={card.version}>; rel="preview"'
    return ModelView.of(card)


@router.get(
    "/{name}/preview.png",
    operation_id="getModelPreview",
    summary="A grid of what a model makes",
    response_class=Response,
    responses={200: _PNG, 206: _PART, 304: _KEPT, **responses("not-found", "invalid"), **ranges.PROBLEMS},
    openapi_extra={"parameters": ranges.HEADERS},
)
def preview(name: Name, request: Request, context: InContext, version: Version = None) -> Response:
    """A grid of what the model makes, if a picture is beside its weights."""
    try:
        content = context.store.preview(name, version)
    except ModelNotFound as error:
        raise _not_found(context, name, version) from error
    if content is None:
        raise Problem("not-found", f"model {name} has no preview.png beside its weights")
    headers = _headers(content)
    if caching.has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return ranges.respond(request, content, headers, PNG)


@router.get(
    "/{name}/scores",
    operation_id="getModelScores",
    summary="The scores of a model of the plane",
    response_model=ScoreField,
    responses={304: _KEPT, **responses("not-found", "invalid")},
)
def scores(name: Name, request: Request, context: InContext, version: Version = None) -> Response:
    """What a model of points in the plane has learnt of the score at each noise level, on a grid: to be drawn."""
    try:
        content = context.store.scores(name, version)
    except ModelNotFound as error:
        raise _not_found(context, name, version) from error
    if content is None:
        reason = (
            f"model {name} has no scores.json beside its weights: only those of points in the plane, like toy2d, do"
        )
        raise Problem("not-found", reason)
    headers = _headers(content)
    if caching.has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _not_found(context: Context, name: str, version: int | None) -> Problem:
    """What is told of a model, or a version of it, that is not there or cannot be used."""
    if version is not None and (versions := context.store.versions(name)) and version not in versions:
        return Problem("not-found", "; ".join(no_version(context.store, name, version)))
    return Problem("not-found", f"there is no such model; there is: {', '.join(context.store.names())}")


def _headers(content: bytes) -> dict[str, str]:
    """Of a file beside a model's weights."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return {"ETag": tag, "Cache-Control": "private, max-age=300"}
