"""ScoreModel: a network seen as the score of the noised data, s(x, sigma) = grad log p_sigma(x)."""

import math
from collections.abc import Iterable

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.card import ImageShape, ModelCard, NetworkSpec
from models.networks.unet import UNet
from models.store import BrokenModel, ModelStore

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet}


def build_network(spec: NetworkSpec) -> nn.Module:
    """The network of a spec, with fresh weights.

    Raises:
        TypeError, ValueError: the spec's arguments do not fit the network.
    """
    return NETWORKS[spec.kind](**spec.arguments)


class Preconditioning:
    """EDM preconditioning (Karras 2022, Table 1) of data with mean m and standard deviation sd.

    The denoiser is D(x, sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), c_noise); with s = (D - x) / sigma^2
    (eq. 3) the score is affine in the network's output, without the cancellation of D - x at small sigma:

        s = -(x - m) / (sigma^2 + sd^2) + sd / (sigma sqrt(sigma^2 + sd^2)) F
    """

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def c_in(self, sigma: float) -> float:
        return 1 / math.hypot(sigma, self.std)

    def c_noise(self, sigma: float) -> float:
        return math.log(sigma) / 4

    def score_skip(self, sigma: float) -> float:
        """Factor of (x - m) in the score."""
        return -1 / (sigma**2 + self.std**2)

    def score_out(self, sigma: float) -> float:
        """Factor of the network's output in the score."""
        return self.std / (sigma * math.hypot(sigma, self.std))


class ScoreModel:
    """A trained network with its preconditioning, on one device.

    Images are [n, c, h, w] with pixels in [0, 1], sigma is in the same units.

    Args:
        network: has `condition(c_noise [n]) -> [n, f]` and `forward(x, condition)`.
        preconditioning: what turns its output into a score.
        image: shape of an image.
        device: torch device name.
        cache: how many noise levels' conditions are kept; beyond that the oldest leaves.
    """

    def __init__(
        self,
        network: nn.Module,
        preconditioning: Preconditioning,
        image: ImageShape,
        device: str | torch.device = "cpu",
        cache: int = 16384,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.preconditioning = preconditioning
        self.image = image
        self._cache = cache
        self._conditions: dict[float, Tensor] = {}

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
        except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
            raise BrokenModel(f"model {card.name} version {card.version} cannot be loaded: {error}") from error
        return cls(network, Preconditioning(card.network.data_mean, card.network.data_std), card.image, device)

    def condition(self, sigma: float) -> Tensor:
        """All that the score needs to know of one noise level, [3 + f]: c_in, both score factors, FiLM parameters.

        Made for one level at a time, at one fixed shape, and remembered: so it costs nothing at the second use, and its
        bits depend on sigma alone.
        """
        known = self._conditions.get(sigma)
        if known is None:
            p = self.preconditioning
            with torch.inference_mode():
                level = torch.tensor([p.c_noise(sigma)], dtype=torch.float32, device=self.device)
                film = self.network.condition(level)[0]  # type: ignore[operator]
                head = torch.tensor([p.c_in(sigma), p.score_skip(sigma), p.score_out(sigma)], dtype=torch.float32)
                known = torch.cat([head.to(self.device), film])
            if len(self._conditions) >= self._cache:
                del self._conditions[next(iter(self._conditions))]
            self._conditions[sigma] = known
        return known

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
        centred = x - self.preconditioning.mean
        score: Tensor = skip * centred + out * self.network(c_in * centred, conditions[:, 3:])
        return score[:n]

    def score(self, x: Tensor, sigma: float | Iterable[float]) -> Tensor:
        """Score [n, c, h, w] at x [n, c, h, w], for one sigma or one for each image."""
        sigmas = [float(sigma)] * len(x) if isinstance(sigma, int | float) else [float(s) for s in sigma]
        return self.conditioned_score(x, torch.stack([self.condition(s) for s in sigmas]))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The expected clean image, x + sigma^2 s(x, sigma) (Tweedie's formula), [n, c, h, w]."""
        return x + sigma**2 * self.score(x, sigma)
