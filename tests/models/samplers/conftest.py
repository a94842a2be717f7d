import pytest

from models.card import ModelCard


@pytest.fixture(scope="session")
def consistency_card(tiny_card: ModelCard) -> ModelCard:
    """A consistency model, which has no score."""
    network = {"kind": "adm", "parametrisation": {"name": "consistency", "pixels": [-1, 1]}}
    update = {"network": network, "sigma_min": 0.001, "sampler": {"name": "multistep_consistency"}}
    return ModelCard.model_validate(tiny_card.model_dump() | update)
