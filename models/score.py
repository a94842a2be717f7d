"""ScoreModel: a network seen as the score of the noised data, s(x, sigma) = grad log p_sigma(x)."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, assert_never

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.card import ImageShape, ModelCard, NetworkSpec
from models.networks.guided import GuidedUNet
from models.networks.refinenet import RefineNetV1, RefineNetV2
from models.networks.unet import UNet
from models.store import BrokenModel, ModelStore

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "guided-unet": GuidedUNet,
    "refinenet-v1": RefineNetV1,
    "refinenet-v2": RefineNetV2,
}


def build_network(spec: NetworkSpec) -> nn.Module:
    """The network of a spec, with fresh weights.

    Raises:
        TypeError, ValueError: the spec's arguments do not fit the network.
    """
    return NETWORKS[spec.kind](**spec.arguments)


class Factors(NamedTuple):
    """What surrounds a network F at one noise level: score = skip (x - mean) + out F(c_in (x - mean), c_noise)."""

    c_in: float
    c_noise: float
    skip: float
    out: float


class Parametrisation(Protocol):
    """How the output of a kind of network becomes a score. `mean` is what is taken from x before all else."""

    mean: float

    def factors(self, sigma: float) -> Factors:
        """The factors of one noise level.

        Raises:
            ValueError: the network does not know this level; the message says which it knows.
        """


class Preconditioning:
    """EDM preconditioning (Karras 2022, Table 1) of data with mean m and standard deviation sd.

    The denoiser is D(x, sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), c_noise); with s = (D - x) / sigma^2
    (eq. 3) the score is affine in the network's output, without the cancellation of D - x at small sigma:

        s = -(x - m) / (sigma^2 + sd^2) + sd / (sigma sqrt(sigma^2 + sd^2)) F
    """

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def factors(self, sigma: float) -> Factors:
        total = math.hypot(sigma, self.std)
        return Factors(
            c_in=1 / total,
            c_noise=math.log(sigma) / 4,
            skip=-1 / (sigma**2 + self.std**2),
            out=self.std / (sigma * total),
        )


class DiscreteLevels:
    """The network's output is the score itself, and it is told the index of the level (Song & Ermon 2019).

    Args:
        sigmas: the levels that it was trained at, in the order of their indices.
    """

    mean = 0.0

    def __init__(self, sigmas: Iterable[float]) -> None:
        self.sigmas = {self._rounded(sigma): index for index, sigma in enumerate(sigmas)}

    def factors(self, sigma: float) -> Factors:
        index = self.sigmas.get(self._rounded(sigma))
        if index is None:
            raise ValueError(f"{sigma:g} is no noise level of this model; it knows only {', '.join(self.sigmas)}")
        return Factors(c_in=1.0, c_noise=float(index), skip=0.0, out=1.0)

    @staticmethod
    def _rounded(sigma: float) -> str:
        """A level is the same one in float32, in float64, and by whichever formula its sequence was computed."""
        return f"{sigma:.6g}"


class OutputOverSigma:
    """The score is the network's output over sigma, which the network is not told (Song & Ermon 2020, technique 3)."""

    mean = 0.0

    def factors(self, sigma: float) -> Factors:
        return Factors(c_in=1.0, c_noise=0.0, skip=0.0, out=1 / sigma)


def parametrise(spec: NetworkSpec, sigmas: Sequence[float] | None) -> Parametrisation:
    """The parametrisation of a spec's network.

    Args:
        spec: the network.
        sigmas: the only levels it knows, descending; None if it knows all.

    Raises:
        ValueError: the spec lacks what its kind of network needs.
    """
    match spec.kind:
        case "unet" | "guided-unet":
            if spec.data_std is None:
                raise ValueError("a unet needs data_std")
            return Preconditioning(spec.data_mean, spec.data_std)
        case "refinenet-v1":
            if sigmas is None:
                raise ValueError("a refinenet-v1 needs the levels that it was trained at")
            return DiscreteLevels(sigmas)
        case "refinenet-v2":
            return OutputOverSigma()
        case _:
            assert_never(spec.kind)


class ScoreModel:
    """A trained network with its parametrisation, on one device.

    Images are [n, c, h, w] with pixels in [0, 1], sigma is in the same units.

    Args:
        network: has `condition(c_noise [n]) -> [n, f]` and `forward(x, condition)`. With classes it has
            `condition(c_noise [n], label [n])`, where a label is an int64 below `classes`, or `classes` for none.
        parametrisation: what turns its output into a score.
        image: shape of an image.
        device: torch device name.
        cache: how many conditions are kept; beyond that the oldest leaves.
        classes: how many classes the network knows.
        needs_label: whether it was never trained without a label.
    """

    def __init__(
        self,
        network: nn.Module,
        parametrisation: Parametrisation,
        image: ImageShape,
        device: str | torch.device = "cpu",
        cache: int = 16384,
        classes: int = 0,
        needs_label: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.parametrisation = parametrisation
        self.image = image
        self.classes, self.needs_label = classes, needs_label
        self.executed: nn.Module | None = None  # the same network, run in another way
        self._cache = cache
        self._conditions: dict[tuple[float, int | None], Tensor] = {}

    @classmethod
    def load(cls, store: ModelStore, card: ModelCard, device: str | torch.device = "cpu") -> "ScoreModel":
        """Reads a version of a model from the store.

        Raises:
            ModelNotFound: the version is gone.
            BrokenModel: its weights are damaged or do not fit its network.
        """
        weights = store.weights(card)
        try:
            network = build_network(card.network)
            state = safetensors.torch.load(weights)
            network.load_state_dict({k: v.float() for k, v in state.items()})
            parametrisation = parametrise(card.network, card.sigmas)
        except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
            raise BrokenModel(f"model {card.name} version {card.version} cannot be loaded: {error}") from error
        classes = len(card.classes or ())
        return cls(network, parametrisation, card.image, device, classes=classes, needs_label=card.needs_label)

    def condition(self, sigma: float, label: int | None = None) -> Tensor:
        """All that the score needs to know of a noise level and a class, [3 + f]: c_in, skip, out, and the network's
        condition.

        Made for one of them at a time, at one fixed shape, and remembered: so it costs nothing at the second use, and
        its bits depend on sigma and the label alone.

        Args:
            sigma: the noise level.
            label: index of the class; None for images of all classes.

        Raises:
            ValueError: the model does not know this level or class; the message says which it knows.
        """
        known = self._conditions.get((sigma, label))
        if known is None:
            factors = self.parametrisation.factors(sigma)
            with torch.inference_mode():
                level = torch.tensor([factors.c_noise], dtype=torch.float32, device=self.device)
                condition = self.network.condition(level, *self._told(label))[0]  # type: ignore[operator]
                head = torch.tensor([factors.c_in, factors.skip, factors.out], dtype=torch.float32)
                known = torch.cat([head.to(self.device), condition])
            if len(self._conditions) >= self._cache:
                del self._conditions[next(iter(self._conditions))]
            self._conditions[sigma, label] = known
        return known

    def _told(self, label: int | None) -> tuple[Tensor, ...]:
        """What a network is told of a class besides the noise level: nothing if it knows no classes."""
        if label is None and not self.needs_label:
            label = self.classes
        elif label is None or not 0 <= label < self.classes:
            known = f"it has {self.classes}, from 0" if self.classes else "it has none"
            raise ValueError(f"this model has no class {label}; {known}")
        return (torch.tensor([label], device=self.device),) if self.classes else ()

    @torch.inference_mode()
    def conditioned_score(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Score [n, c, h, w] at x [n, c, h, w], each image at the level of its own row of `condition`s [n, 3 + f].

        An image's bits depend on its row alone, whatever n is and whatever else is in the batch: convolutions take
        another path at n = 1, so one image is evaluated as two.
        """
        n = len(x)
        if n == 1:
            x, conditions = x.expand(2, -1, -1, -1), conditions.expand(2, -1)
        c_in, skip, out = conditions[:, :3, None, None].unsqueeze(-1).unbind(1)
        centred = x - self.parametrisation.mean
        network = self.network if self.executed is None else self.executed
        score: Tensor = skip * centred + out * network(c_in * centred, conditions[:, 3:])
        return score[:n]

    def score(self, x: Tensor, sigma: float | Iterable[float], label: int | None = None) -> Tensor:
        """Score [n, c, h, w] at x [n, c, h, w], for one sigma or one for each image, of one class or of all."""
        sigmas = [float(sigma)] * len(x) if isinstance(sigma, int | float) else [float(s) for s in sigma]
        return self.conditioned_score(x, torch.stack([self.condition(s, label) for s in sigmas]))

    def denoise(self, x: Tensor, sigma: float, label: int | None = None) -> Tensor:
        """The expected clean image, x + sigma^2 s(x, sigma) (Tweedie's formula), [n, c, h, w]."""
        return x + sigma**2 * self.score(x, sigma, label)
