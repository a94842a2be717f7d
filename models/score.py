"""ScoreModel: a network seen as the score of the noised data, s(x, sigma) = grad log p_sigma(x)."""

from collections.abc import Iterable

import safetensors.torch
import torch
from torch import Tensor, nn

from models import networks
from models.card import ImageShape, ModelCard, NetworkSpec
from models.networks.plain import Plain
from models.parametrisation import Parametrisation
from models.sampling.memory import sent
from models.store import BrokenModel, ModelStore


def build_network(spec: NetworkSpec, trusted: bool = False) -> nn.Module:
    """The network of a spec, with fresh weights.

    Args:
        spec: of a card.
        trusted: see models.networks.load.

    Raises:
        UnknownNetwork: there is no such network here, or the operator has not allowed it.
        TypeError, ValueError: the spec's arguments do not fit the network.
    """
    network: nn.Module = networks.load(spec.kind, trusted)(**spec.arguments)
    return network if hasattr(network, "condition") else Plain(network)


class ScoreModel:
    """A trained network with its parametrisation, on one device.

    Images are [n, c, h, w] with pixels in [0, 1], sigma is in the same units.

    Args:
        network: has `condition` and `forward` as models.networks describes them.
        parametrisation: what turns its output into a score.
        image: shape of an image.
        device: torch device name.
        cache: how many numbers are kept in conditions; beyond that the oldest leave. A large network has tens of
            thousands for each level and class.
        classes: how many classes the network knows.
        needs_label: whether it was never trained without a label.
    """

    def __init__(
        self,
        network: nn.Module,
        parametrisation: Parametrisation,
        image: ImageShape,
        device: str | torch.device = "cpu",
        cache: int = 2**26,
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

    @property
    def needs_one_width(self) -> bool:
        """Whether the network gives an image other last bits at another width of the batch, and says so."""
        return bool(getattr(self.network, "needs_one_width", False))

    @property
    def any_label(self) -> int | None:
        """A label for those who want some image, whichever: none, if the model can do without."""
        return 0 if self.needs_label else None

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
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
            parametrisation = card.network.parametrised(card.sigmas)
        except networks.UnknownNetwork as error:
            raise BrokenModel(str(error)) from error
        except MemoryError:
            raise
        except Exception as error:  # the network may be code of others
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
                level = sent(torch.tensor([factors.c_noise], dtype=torch.float32), self.device)
                condition = self.network.condition(level, *self._told(label))[0]  # type: ignore[operator]
                head = torch.tensor([factors.c_in, factors.skip, factors.out], dtype=torch.float32)
                known = torch.cat([sent(head, self.device), condition])
            while self._conditions and (len(self._conditions) + 1) * len(known) > self._cache:
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
        return (sent(torch.tensor([label]), self.device),) if self.classes else ()

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
