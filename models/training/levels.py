"""The noise levels that a batch is trained at."""

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models.sampling import schedules


class NoiseLevels(BaseModel):
    """A geometric sequence of noise levels, the only ones that a run trains at, in units of pixels in [0, 1].

    NCSN (Song & Ermon 2019, section 4.1) has 10 from 1 to 0.01; NCSNv2 (Song & Ermon 2020, techniques 1 and 2) starts
    at the largest distance of two training images and has so many that neighbours overlap: 232 from 50 to 0.01 for
    CIFAR-10. A single one is score matching without annealing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma_max: float = Field(gt=0, allow_inf_nan=False)
    sigma_min: float = Field(gt=0, allow_inf_nan=False)
    count: int = Field(ge=1)

    @model_validator(mode="after")
    def _descending(self) -> "NoiseLevels":
        if self.count == 1 and self.sigma_max != self.sigma_min:
            raise ValueError("a single noise level has sigma_max = sigma_min")
        if self.count > 1 and self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def sigmas(self) -> list[float]:
        """All levels, descending."""
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
