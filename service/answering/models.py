"""A model as the client sees it: its card, and what it can do."""

from pydantic import BaseModel, ConfigDict, Field

from models.card import EXAMPLE, ModelCard
from models.labels import why_unguided
from models.plan import why_not
from models.samplers.settings import SAMPLERS
from models.store import ModelStore


class Ability(BaseModel):
    """Something that a model may be asked for."""

    name: str
    why_not: str | None = Field(description="Why this model cannot; null if it can.")


class Abilities(BaseModel):
    """What a model may be asked for."""

    samplers: list[Ability] = Field(description="All samplers of GET /samplers.")
    guidance: Ability


class ModelView(ModelCard):
    """A model's card, and what it can do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **EXAMPLE,
                    "abilities": {
                        "samplers": [
                            {
                                "name": "multistep_consistency",
                                "why_not": "multistep_consistency samples consistency models; mnist is none",
                            }
                        ],
                        "guidance": {"name": "guidance", "why_not": "mnist knows no classes"},
                    },
                }
            ]
        }
    )

    abilities: Abilities

    @classmethod
    def of(cls, card: ModelCard) -> "ModelView":
        """The view of a card."""
        samplers = [
            Ability(name=sampler.known_as(), why_not=why_not(sampler, card, known=True)) for sampler in SAMPLERS
        ]
        guidance = Ability(name="guidance", why_not=why_unguided(card))
        return cls(**dict(card), abilities=Abilities(samplers=samplers, guidance=guidance))


def no_version(store: ModelStore, name: str, version: int | None) -> tuple[str, str]:
    """What is told of a version that a model does not have: what is wrong, and what there is."""
    return f"{name} has no version {version}", f"one of: {', '.join(map(str, store.versions(name)))}"
