"""The samplers as their papers write them: plain loops, kept as the oracle of the tests and the baseline of benchmarks.

Images are [n, c, h, w]. `score(x, sigma)` is a score model. `noise(k)` is the standard normal noise of the k-th network
evaluation. `paint(x, sigma, k)` overwrites the known pixels after it with the known image noised to sigma (Song & Ermon
2019, Appendix B.3); left out, nothing is known.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

Score = Callable[[Tensor, float], Tensor]
Noise = Callable[[int], Tensor]
Paint = Callable[[Tensor, float, int], Tensor]
PaintBeyond = Callable[[Tensor, Tensor, Tensor, float, float, int], Tensor]


def _paint_nothing(x: Tensor, _sigma: float, _k: int) -> Tensor:
    return x


def follow_scores(
    score: Score, x: Tensor, sigma: float, steps: int, step_size: float, paint: Paint = _paint_nothing
) -> Tensor:
    """Gradient ascent on log p_sigma."""
    for k in range(steps):
        x = x + step_size / 2 * score(x, sigma)
        x = paint(x, sigma if k < steps - 1 else 0.0, k)
    return x


def langevin(
    score: Score,
    x: Tensor,
    sigma: float,
    steps: int,
    step_size: float,
    denoise: bool,
    noise: Noise,
    paint: Paint = _paint_nothing,
) -> Tensor:
    """Langevin dynamics at one noise level (Song & Ermon 2019, eq. 4)."""
    return annealed_langevin(score, x, [sigma], steps, step_size, denoise, noise, paint)


def annealed_langevin(
    score: Score,
    x: Tensor,
    sigmas: Sequence[float],
    steps_per_level: int,
    step_size: float,
    denoise: bool,
    noise: Noise,
    paint: Paint = _paint_nothing,
) -> Tensor:
    """Annealed Langevin dynamics (Song & Ermon 2019, Algorithm 1)."""
    k, last = 0, len(sigmas) * steps_per_level + denoise - 1
    for sigma in sigmas:
        alpha = step_size * sigma**2 / sigmas[-1] ** 2
        for _ in range(steps_per_level):
            x = x + alpha / 2 * score(x, sigma) + alpha**0.5 * noise(k)
            x = paint(x, sigma if k < last else 0.0, k)
            k += 1
    if denoise:
        x = paint(x + sigmas[-1] ** 2 * score(x, sigmas[-1]), 0.0, k)
    return x


def consistent_annealed(
    score: Score, x: Tensor, sigmas: Sequence[float], eta: float, noise: Noise, paint: Paint = _paint_nothing
) -> Tensor:
    """Consistent annealed sampling (Jolicoeur-Martineau 2020) and a last denoise."""
    for i in range(len(sigmas) - 1):
        gamma = sigmas[i + 1] / sigmas[i]
        beta = (1 - ((1 - eta) / gamma) ** 2) ** 0.5
        x = x + eta * sigmas[i] ** 2 * score(x, sigmas[i]) + beta * sigmas[i + 1] * noise(i)
        x = paint(x, sigmas[i + 1], i)
    return paint(x + sigmas[-1] ** 2 * score(x, sigmas[-1]), 0.0, len(sigmas) - 1)


def ancestral(
    score: Score, x: Tensor, sigmas: Sequence[float], eta: float, noise: Noise, paint: Paint = _paint_nothing
) -> Tensor:
    """DDIM with noise (Song, Meng & Ermon 2021, eq. 12 and 16), by variances in place of its alphas: ancestral sampling
    of the variance-exploding chain (Song 2021, Appendix F, eq. 47) with eta = 1."""
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        denoised = x + sigma**2 * score(x, sigma)
        std = eta * ((sigma**2 - following**2) * following**2 / sigma**2) ** 0.5
        mean = denoised + (following**2 - std**2) ** 0.5 * (x - denoised) / sigma
        x = paint(mean + std * noise(i) if std else mean, following, i)
    return x


def dpmpp_2m_sde(
    score: Score, x: Tensor, sigmas: Sequence[float], eta: float, noise: Noise, paint: Paint = _paint_nothing
) -> Tensor:
    """DPM-Solver++(2M) (Lu 2022, Algorithm 2) for the reverse SDE with a share of its noise, in lambda = -log sigma."""
    before: tuple[float, Tensor] | None = None  # lambda and the denoised image
    for i, sigma in enumerate(sigmas):
        denoised = x + sigma**2 * score(x, sigma)
        if i + 1 == len(sigmas):
            return paint(denoised, 0.0, i)
        now, following = -math.log(sigma), -math.log(sigmas[i + 1])
        middle = denoised  # as it is expected half a step on
        if before is not None:
            middle = denoised + (following - now) / 2 * (denoised - before[1]) / (now - before[0])
        kept = math.exp((1 + eta) * (now - following))
        std = sigmas[i + 1] * (1 - math.exp(2 * eta * (now - following))) ** 0.5
        before = now, denoised
        x = paint(kept * x + (1 - kept) * middle + (std * noise(i) if std else 0.0), sigmas[i + 1], i)
    return x


def repaint(
    score: Score,
    x: Tensor,
    sigmas: Sequence[float],
    resamples: int,
    persistence: float,
    noise: Noise,
    paint_beyond: PaintBeyond,
) -> Tensor:
    """RePaint (Lugmayr 2022, Algorithm 1) by variances in place of its alphas, with feedback at each level.

    `paint_beyond(x, before, denoised, kept, std, k)` leads what is known to the known image, and what it lacks in
    `denoised` beyond it, with a share `kept` of what x was off `before` and noise of a standard deviation. The two
    Gaussian steps, down and up again, are one.
    """
    k = 0
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        for u in range(resamples if following else 1):
            again = following > 0 and u < resamples - 1
            denoised = x + sigma**2 * score(x, sigma)
            kept = following**2 / sigma**2  # of the noise's variance
            variance = (1 - kept) * following**2 + (sigma**2 - following**2 if again else 0.0)
            level, before = sigma if again else following, x
            x = denoised + kept * (x - denoised) + (variance**0.5 * noise(k) if variance else 0.0)
            std = (1 - persistence**2) ** 0.5 * level
            x = paint_beyond(x, before, denoised, persistence * level / sigma, std, k)
            k += 1
    return x


def euler(score: Score, x: Tensor, sigmas: Sequence[float], paint: Paint = _paint_nothing) -> Tensor:
    """Euler's method for the probability-flow ODE: towards the denoised image, by the share that the noise shrinks."""
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        denoised = x + sigma**2 * score(x, sigma)
        x = paint(denoised + following / sigma * (x - denoised), following, i)
    return x


def adams_bashforth(score: Score, x: Tensor, sigmas: Sequence[float], paint: Paint = _paint_nothing) -> Tensor:
    """The second-order method of Adams and Bashforth for the probability-flow ODE, on uneven steps."""
    slopes: list[Tensor] = []
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        slopes.append(-sigma * score(x, sigma))
        slope = slopes[-1]
        if i > 0 and following > 0:  # the line through the last two slopes, at the middle of the step
            middle = (sigma + following) / 2
            rise = (slopes[-1] - slopes[-2]) / (sigma - sigmas[i - 1])
            slope = slope + (middle - sigma) * rise
        x = paint(x + (following - sigma) * slope, following, i)
    return x


def heun(score: Score, x: Tensor, sigmas: Sequence[float], paint: Paint = _paint_nothing) -> Tensor:
    """Heun's method for the probability-flow ODE (Karras 2022, Algorithm 1 with sigma(t) = t, s(t) = 1)."""
    k = 0
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        slope = -sigma * score(x, sigma)
        euler = paint(x + (following - sigma) * slope, following, k)
        k += 1
        if following == 0:
            return euler
        second = -following * score(euler, following)
        x = paint(x + (following - sigma) * (slope + second) / 2, following, k)
        k += 1
    return x


def multistep_consistency(
    score: Score, x: Tensor, sigmas: Sequence[float], least: float, noise: Noise, paint: Paint = _paint_nothing
) -> Tensor:
    """Multistep sampling (Song 2023, Algorithm 1) of a consistency model f(x, sigma) = x + sigma^2 score(x, sigma)."""
    for i, sigma in enumerate(sigmas):
        x = x + sigma**2 * score(x, sigma)
        if i + 1 == len(sigmas):
            return paint(x, 0.0, i)
        x = paint(x + (sigmas[i + 1] ** 2 - least**2) ** 0.5 * noise(i), sigmas[i + 1], i)
    return x
