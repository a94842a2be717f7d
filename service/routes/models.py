"""/models: what can be sampled."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from models.card import ModelCard
from models.store import BrokenModel, ModelNotFound
from service.context import InContext
from service.problems import Problem, responses

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def models(context: InContext) -> list[ModelCard]:
    """The newest card of every model."""
    return context.store.cards()


@router.get("/{name}", responses=responses("not-found", "invalid"))
def model(
    name: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["mnist"])],
    context: InContext,
    version: Annotated[int | None, Query(ge=1, le=10**9, description="The newest by default.")] = None,
) -> ModelCard:
    """A model's card: image shape, noise range, default sampler, how it was made, what was measured on it."""
    try:
        return context.store.card(name, version)
    except (ModelNotFound, BrokenModel) as error:
        raise Problem("not-found", f"there is no such model; there is: {', '.join(context.store.names())}") from error
