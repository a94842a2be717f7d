"""Samplers as tables: a row for each network evaluation. Numpy only, so the service counts and checks without torch.

A row is (sigma, drift, carry, noise, known, feedback), and what it does to an image x is

    e = x + sigma^2 * score(x, sigma)                                  the denoised image
    d = drift * score(x, sigma) + carry * d_previous                   d_previous: `drift * score` of the row before
    x = x + d + noise * z                                              z: standard normal
    x = x + Q (known_image + feedback * (known_image - e) + known * z' - x)

The last line is only of images of which something is known: its orthogonal projection Q, see
models/sampling/projections.py. Of an inpainting Q keeps what the mask does not repaint.

`known` is the noise level that x has after the row, so that the pixels given by the client are as noisy as those
around them, and 0 in the last row: they come back exactly as they were sent. `feedback` aims past what is known, by so
many times what the denoised image still lacks of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("sigma", "drift", "carry", "noise", "known", "feedback")


@dataclass(frozen=True, eq=False)
class Table:
    """A sampler, ready to run.

    Args:
        rows: float64 [rows, 6], in the order of COLUMNS.
        initial_std: x starts as N(initial_mean, initial_std^2) in every pixel; None starts it uniform in [0, 1].
        initial_mean: should be the mean of the data. Images noised to sigma_1 have it, and what a start elsewhere adds,
            the square root of the number of pixels times the difference, sigma_1 may not drown: on MNIST, from 1/2
            and sigma_1 = 10, half of the ones are lost.
    """

    rows: NDArray[np.float64]
    initial_std: float | None
    initial_mean: float = 0.5

    def __len__(self) -> int:
        """Network evaluations of one image: its image-steps."""
        return len(self.rows)

    def column(self, name: str) -> NDArray[np.float64]:
        """One column [rows], by its name in COLUMNS."""
        column: NDArray[np.float64] = self.rows[:, COLUMNS.index(name)]
        return column


def snapshots(rows: int, count: int) -> tuple[int, ...]:
    """After how many of a table's rows an image is looked at: `count` times, evenly, the last time after the last.

    Args:
        rows: of the table, at least `count`.
        count: at least 0.
    """
    return tuple(-(-rows * number // count) for number in range(1, count + 1))


def follow_scores(sigma: float, steps: int, step_size: float) -> Table:
    """Gradient ascent on log p_sigma from uniform noise: x += alpha/2 s(x, sigma), alpha = `step_size`."""
    return _table([(sigma, step_size / 2, 0.0, 0.0, sigma)] * steps, None)


def langevin(sigma: float, steps: int, step_size: float, denoise: bool) -> Table:
    """Langevin dynamics at one noise level from uniform noise (Song & Ermon 2019, eq. 4), alpha = `step_size`.

    x += alpha/2 s(x, sigma) + sqrt(alpha) z, and with `denoise` a last x += sigma^2 s(x, sigma).
    """
    rows = [(sigma, step_size / 2, 0.0, math.sqrt(step_size), sigma)] * steps
    return _table(rows + [_denoise(sigma)] * denoise, None)


def annealed_langevin(
    sigmas: Sequence[float], steps_per_level: int, step_size: float, denoise: bool, initial_std: float | None
) -> Table:
    """Annealed Langevin dynamics (Song & Ermon 2019, Algorithm 1; the last denoise: Song & Ermon 2020, section 3.3).

    At level i, `steps_per_level` times: x += alpha_i/2 s(x, sigma_i) + sqrt(alpha_i) z with
    alpha_i = step_size * sigma_i^2 / sigma_L^2.

    Args:
        sigmas: noise levels, descending, each above 0.
        steps_per_level: T in the paper.
        step_size: epsilon in the paper; the authors' code means half of it by the same name.
        denoise: whether a last row x += sigma_L^2 s(x, sigma_L) is added.
        initial_std: see Table.
    """
    rows = []
    for sigma in sigmas:
        alpha = step_size * (sigma / sigmas[-1]) ** 2
        rows += [(sigma, alpha / 2, 0.0, math.sqrt(alpha), sigma)] * steps_per_level
    return _table(rows + [_denoise(sigmas[-1])] * denoise, initial_std)


def consistent_annealed(sigmas: Sequence[float], eta: float) -> Table:
    """Consistent annealed sampling (Jolicoeur-Martineau 2020) and a last denoise.

    x += eta sigma_i^2 s(x, sigma_i) + sigma_{i+1} sqrt(1 - ((1 - eta) / gamma)^2) z with gamma = sigma_{i+1} / sigma_i,
    which leaves noise of exactly sigma_{i+1} where the score is exact. eta = 1 - gamma is Euler's step, without noise;
    eta = 1 - gamma^2 is ancestral sampling.
    Cost: n evaluations for n levels.

    Args:
        sigmas: noise levels, descending, each above 0.
        eta: between 1 - gamma and 1 + gamma at every level.
    """
    rows = []
    for sigma, following in pairwise(sigmas):
        kept = (1 - eta) * sigma / following
        rows.append((sigma, eta * sigma**2, 0.0, following * math.sqrt(max(0.0, 1 - kept**2)), following))
    return _table([*rows, _denoise(sigmas[-1])], sigmas[0])


def ancestral(sigmas: Sequence[float]) -> Table:
    """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47).

    x += (sigma_i^2 - sigma_{i+1}^2) s(x, sigma_i) + sqrt((sigma_i^2 - sigma_{i+1}^2) sigma_{i+1}^2 / sigma_i^2) z; the
    step to 0 has no noise. Cost: n evaluations for n levels.

    Args:
        sigmas: noise levels, descending, each above 0; the sampler ends at 0.
    """
    rows = []
    for sigma, following in _steps(sigmas):
        difference = sigma**2 - following**2
        rows.append((sigma, difference, 0.0, math.sqrt(difference) * following / sigma, following))
    return _table(rows, sigmas[0])


def euler(sigmas: Sequence[float]) -> Table:
    """The probability-flow ODE dx = -sigma s(x, sigma) dsigma by Euler's method, which is DDIM (Karras 2022, eq. 3).

    x += sigma_i (sigma_i - sigma_{i+1}) s(x, sigma_i). Cost: n evaluations for n levels.

    Args:
        sigmas: noise levels, descending, each above 0; the sampler ends at 0.
    """
    rows = [(sigma, sigma * (sigma - following), 0.0, 0.0, following) for sigma, following in _steps(sigmas)]
    return _table(rows, sigmas[0])


def adams_bashforth(sigmas: Sequence[float]) -> Table:
    """The probability-flow ODE by the second-order method of Adams and Bashforth: one evaluation a step.

    The slope f = -sigma s is carried on as a straight line through the last two (Zhang & Chen 2023, DEIS):
    with h_i = sigma_{i+1} - sigma_i and w = h_i / (2 h_{i-1}), x += h_i ((1 + w) f_i - w f_{i-1}). The first step and
    the step to 0 are Euler's. Cost: n evaluations for n levels.

    Args:
        sigmas: noise levels, descending, each above 0; the sampler ends at 0.
    """
    rows: list[tuple[float, float, float, float, float]] = []
    before = None  # sigma, step and drift of the row before
    for sigma, following in _steps(sigmas):
        h = following - sigma
        w = 0.0 if before is None or following == 0 else h / (2 * before[1])
        carry = 0.0 if before is None else h * w * before[0] / before[2]
        drift = -h * (1 + w) * sigma
        rows.append((sigma, drift, carry, 0.0, following))
        before = sigma, h, drift
    return _table(rows, sigmas[0])


def heun(sigmas: Sequence[float]) -> Table:
    """The probability-flow ODE dx = -sigma s(x, sigma) dsigma by Heun's method (Karras 2022, Algorithm 1).

    A step from sigma_i to sigma_{i+1}, h = sigma_i - sigma_{i+1}, is an Euler row and a row that turns it into the
    trapezoidal rule: x += h/2 sigma_{i+1} s(x, sigma_{i+1}) - 1/2 (the Euler row's update). The step to 0 is Euler's.
    Cost: 2n - 1 evaluations for n levels.

    Args:
        sigmas: noise levels, descending, each above 0; the sampler ends at 0.
    """
    rows = []
    for sigma, following in _steps(sigmas):
        h = sigma - following
        rows.append((sigma, h * sigma, 0.0, 0.0, following))
        if following > 0:
            rows.append((following, h / 2 * following, -0.5, 0.0, following))
    return _table(rows, sigmas[0])


def _steps(sigmas: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Each level and the one after it; after the last comes 0."""
    return pairwise([*sigmas, 0.0])


def _denoise(sigma: float) -> tuple[float, float, float, float, float]:
    """x += sigma^2 s(x, sigma): Tweedie's formula."""
    return (sigma, sigma**2, 0.0, 0.0, 0.0)


def _table(rows: Sequence[tuple[float, ...]], initial_std: float | None) -> Table:
    array = np.zeros((len(rows), len(COLUMNS)))
    array[:, : len(rows[0])] = rows
    array[-1, COLUMNS.index("known")] = 0.0
    array.flags.writeable = False
    return Table(array, initial_std)
