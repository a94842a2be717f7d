"""The networks that are looked at: the one that ships, and those of presets with weights at random."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks import small
from benchmarks.gpu.findings import Findings
from models.card import ImageShape, ModelCard, NetworkSpec
from models.parametrisation import Edm
from models.plan import plan
from models.samplers.euler import Euler
from models.samplers.table import Table
from models.schedules import geometric
from models.score import ScoreModel, build_network
from models.store import ZOO, ModelStore
from models.training import presets

PRESETS = ("cifar10-large", "ncsn-mnist", "ncsnv2-cifar10")
LEVELS = 10  # of a network that knows only so many noise levels


@dataclass(frozen=True)
class Subject:
    """A network to be looked at.

    Args:
        name: of the model or the preset.
        model: on the device.
        sigma: a noise level in the middle of its range.
        widest: most images at once.
    """

    name: str
    model: ScoreModel
    sigma: float
    widest: int

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """Images about as noisy as the network expects, [n, c, h, w], the same each time, and their conditions."""
        x = torch.randn((n, *self.model.image.chw), generator=torch.Generator().manual_seed(0)) * self.sigma
        condition = self.model.condition(self.sigma, self.model.any_label)
        return x.to(self.model.device), torch.stack([condition] * n)


@cache
def usual_card(tiny: bool) -> ModelCard:
    """The card of the model that all of the engine is measured with."""
    return _small()[0] if tiny else ModelStore(ZOO).card("mnist")


def usual_model(found: Findings) -> ScoreModel:
    """That model, loaded anew."""
    card = usual_card(found.small)
    if not found.small:
        return ScoreModel.load(ModelStore(ZOO), card, found.device)
    network = build_network(card.network)
    network.load_state_dict(safetensors.torch.load(_small()[1]))
    return ScoreModel(network, card.network.parametrised(None), card.image, found.device)


def usual_table(tiny: bool) -> Table:
    """The table of that model's own sampler."""
    return plan(None, usual_card(tiny))[1]


def subjects(found: Findings) -> list[Subject]:
    """All of them."""
    if found.small:
        return [Subject(small.NAME, usual_model(found), 0.5, 8)]
    usual = Subject("mnist", usual_model(found), 0.5, 1024)
    return [usual, *(of_preset(name, found.device) for name in PRESETS)]


def of_preset(name: str, device: torch.device) -> Subject:
    """A network as a preset has it, at 256 images at most: its weights are drawn, so its scores mean nothing."""
    preset = presets.load(name)
    arguments = {"image_channels": preset.image.channels, **preset.training.network}
    kind, sigmas = arguments.pop("kind", "unet"), None
    if preset.training.levels is not None:
        sigmas = geometric(1.0, 0.01, LEVELS)
    if kind == "refinenet-v1":
        arguments["levels"] = LEVELS
    spec = NetworkSpec(kind=kind, arguments=arguments, data_mean=0.5, data_std=0.3)
    torch.manual_seed(0)
    network = build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = ScoreModel(network, spec.parametrised(sigmas), preset.image, device)
    return Subject(name, model, 0.5 if sigmas is None else sigmas[LEVELS // 2], 256)


class Free(nn.Module):
    """A network that costs nothing: what an engine takes with it is its own."""

    def condition(self, level: Tensor) -> Tensor:
        """What it is told of noise levels [n]: [n, 1], of which it makes nothing."""
        return level[:, None]

    def forward(self, x: Tensor, _condition: Tensor) -> Tensor:
        return x


def free_model(image: ImageShape, device: torch.device) -> ScoreModel:
    """A model of such images that costs nothing."""
    return ScoreModel(Free(), Edm(data_mean=0.5, data_std=0.3), image, device)


@cache
def _small() -> tuple[ModelCard, bytes]:
    torch.manual_seed(0)
    weights = safetensors.torch.save({k: v.contiguous() for k, v in build_network(small.NETWORK).state_dict().items()})
    card = ModelCard(
        name=small.NAME,
        version=1,
        created_at=datetime.now(UTC),
        image=ImageShape(channels=1, height=8, width=8),
        sigma_min=0.01,
        sigma_max=10.0,
        network=small.NETWORK,
        sampler=Euler(name="euler", levels=6),
        weights_sha256="0" * 64,
    )
    return card, weights


def flop(subject: Subject) -> float:
    """Floating-point operations of one image through the network once: two for a multiplication and an addition."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 (slow to import)

    x, conditions = subject.batch(2)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        subject.model.conditioned_score(x, conditions)
    return counter.get_total_flops() / 2
