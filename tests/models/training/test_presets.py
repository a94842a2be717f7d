import pytest

from models.card import ModelCard
from models.networks.unet import UNet
from models.sampling.plan import plan
from models.training import presets


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_builds_its_network_and_a_sampler_its_card_allows(name: str, tiny_card: ModelCard) -> None:
    preset = presets.load(name)
    UNet(**preset.training.network)
    published = preset.model.model_dump(include={"sigma_min", "sigma_max"}) | {"sampler": preset.model.sampler}
    _, table = plan(None, tiny_card.model_copy(update=published))
    assert len(table) > 10


def test_mnist_is_a_preset_and_an_unknown_one_is_refused_with_what_there_is() -> None:
    assert "mnist" in presets.names()
    with pytest.raises(LookupError, match=r"no preset '\.\./mnist'; there is: .*mnist"):
        presets.load("../mnist")
