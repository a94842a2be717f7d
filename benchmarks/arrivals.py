"""Arrivals: a Poisson process of grids, the same for every system that is measured."""

import random
from dataclasses import dataclass
from typing import Any

COUNTS = 1, 4, 16
SAMPLERS: dict[int, dict[str, Any]] = {  # by their network evaluations
    35: {"name": "heun", "levels": 18},
    200: {"name": "annealed_langevin", "levels": 40, "steps_per_level": 5, "denoise": False},
    1000: {"name": "annealed_langevin", "levels": 200, "steps_per_level": 5, "denoise": False},
}
CANCELLED = 0.05
MEAN_IMAGE_STEPS = sum(COUNTS) / len(COUNTS) * sum(SAMPLERS) / len(SAMPLERS)  # of a job


@dataclass(frozen=True)
class Arrival:
    """What a client asks for, and when.

    Args:
        at: seconds after the beginning.
        count: images.
        evaluations: network evaluations of each image; one of SAMPLERS.
        seed: of the images.
        cancel_at: when the client thinks better of it, in seconds after the beginning; None for most.
    """

    at: float
    count: int
    evaluations: int
    seed: int
    cancel_at: float | None

    @property
    def image_steps(self) -> int:
        return self.count * self.evaluations

    @property
    def sampler(self) -> dict[str, Any]:
        """Settings as a request has them."""
        return SAMPLERS[self.evaluations]


def arrivals(seconds: float, image_steps_per_second: float, step_seconds: float, seed: int) -> list[Arrival]:
    """Grids that arrive within `seconds`, in order.

    All of COUNTS and SAMPLERS are equally frequent. A client that cancels does so at a random moment of the time that
    its grid needs at least, so before any system could be done.

    Args:
        seconds: how long grids arrive.
        image_steps_per_second: what they ask for, on average.
        step_seconds: of one network evaluation.
        seed: of all that is random.
    """
    rng = random.Random(seed)
    out: list[Arrival] = []
    at = rng.expovariate(image_steps_per_second / MEAN_IMAGE_STEPS)
    while at < seconds:
        count, evaluations = rng.choice(COUNTS), rng.choice(list(SAMPLERS))
        cancel, after = rng.random() < CANCELLED, rng.random() * evaluations * step_seconds
        out.append(Arrival(at, count, evaluations, rng.getrandbits(32), at + after if cancel else None))
        at += rng.expovariate(image_steps_per_second / MEAN_IMAGE_STEPS)
    return out
