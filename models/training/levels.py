"""The noise levels that a batch is trained at."""

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models import schedules
from models.training.data.diameter import diameter


class NoiseLevels(BaseModel):
    """A geometric sequence of noise levels, the only ones that a run trains at, in units of pixels in [0, 1].

    NCSN (Song & Ermon 2019, section 4.1) has 10 from 1 to 0.01. NCSNv2 (Song & Ermon 2020, techniques 1 and 2) starts
    at the largest distance of two training images and has so many that neighbours overlap: that is what is left out
    here, until `completed` computes it. A single level is score matching without annealing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma_max: float | None = Field(None, gt=0, allow_inf_nan=False)
    sigma_min: float = Field(gt=0, allow_inf_nan=False)
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _descending(self) -> "NoiseLevels":
        if self.count == 1 and self.sigma_max != self.sigma_min:
            raise ValueError("a single noise level has sigma_max = sigma_min")
        if self.count != 1 and self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def complete(self) -> bool:
        """Whether nothing is left out."""
        return self.sigma_max is not None and self.count is not None

    def completed(self, images: Tensor, device: str | torch.device = "cpu") -> "NoiseLevels":
        """The same levels, with what is left out computed from the training images.

        Args:
            images: uint8 [n, c, h, w].
            device: where that is computed.

        Raises:
            ValueError: the images are too much alike for several levels.
        """
        sigma_max = diameter(images, device) if self.sigma_max is None else self.sigma_max
        if self.sigma_max is None and sigma_max <= self.sigma_min:
            raise ValueError(
                f"no two training images are farther apart than {sigma_max:g}, which must be above sigma_min "
                f"{self.sigma_min:g}: is this the right data? Otherwise give levels.sigma_max"
            )
        count = self.count or schedules.geometric_levels(sigma_max, self.sigma_min, images[0].numel())
        return NoiseLevels(sigma_max=sigma_max, sigma_min=self.sigma_min, count=count)

    @property
    def sigmas(self) -> list[float]:
        """All levels, descending.

        Raises:
            ValueError: something is left out.
        """
        if self.sigma_max is None or self.count is None:
            raise ValueError("these noise levels are known once they are completed from the training images")
        return schedules.geometric(self.sigma_max, self.sigma_min, self.count)


def uniform(n: int, sigmas: Sequence[float], generator: torch.Generator) -> Tensor:
    """n noise levels [n], each one of `sigmas`, all alike likely (Song & Ermon 2019, eq. 6)."""
    return torch.tensor(sigmas)[torch.randint(len(sigmas), (n,), generator=generator)]


def stratified_log_normal(n: int, log_mean: float, log_std: float, generator: torch.Generator) -> Tensor:
    """n noise levels [n], log-normal, one from each n-th part of the distribution.

    Each level alone is distributed as in Karras 2022, Table 1; together they cover the range evenly, which makes the
    loss of a batch less noisy.
    """
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    normal = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.999999, 0.999999))
    return torch.exp(log_mean + log_std * normal)
