"""Samplers as tables: a row for each network evaluation. Numpy only, so the service counts and checks without torch.

A row is (sigma, drift, carry, noise, known, feedback, kept, aim), and what it does to an image x is

    e = x + sigma^2 * score(x, sigma)                                  the denoised image
    d = drift * score(x, sigma) + carry * previous                     previous: see below
    x = x + d + noise * z                                              z: standard normal
    x = x + Q (known_image + kept * (x_before - known_image) + feedback * (known_image - e) + known * z' - x)

The last line is only of images of which something is known: its orthogonal projection Q, see
models/sampling/projections.py. Of an inpainting Q keeps what the mask does not repaint.

x_before is x as the row found it. The pixels given by the client are as noisy as those around them: the square of the
noise level after the row is that of `known`, the noise that is drawn, and that of kept * sigma, the noise that stays.
In the last row both are 0, and they come back exactly as they were sent. `feedback` aims past what is known, by so many
times what the denoised image still lacks of it; as `kept` holds on to that too, it adds up over the rows.

What the next row finds as `previous` is drift * score(x, sigma), or where `aim` is 1 the way from the new x to the
denoised image, e - x: by the first slopes are carried on, by the second what they lead to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("sigma", "drift", "carry", "noise", "known", "feedback", "kept", "aim")
Row = tuple[float, ...]  # its columns from the first on; those left out are 0


@dataclass(frozen=True, eq=False)
class Table:
    """A sampler, ready to run.

    Args:
        rows: float64 [rows, 8], in the order of COLUMNS.
        initial_std: x starts as N(initial_mean, initial_std^2) in every pixel; None starts it uniform in [0, 1].
        initial_mean: should be the mean of the data. Images noised to sigma_1 have it, and what a start elsewhere adds,
            the square root of the number of pixels times the difference, sigma_1 may not drown: on MNIST, from 1/2
            and sigma_1 = 10, half of the ones are lost.
    """

    rows: NDArray[np.float64]
    initial_std: float | None
    initial_mean: float = 0.5

    @classmethod
    def of(cls, rows: Sequence[Row], initial_std: float | None) -> "Table":
        """The table of these rows, of which the last leaves known pixels exact."""
        array = np.zeros((len(rows), len(COLUMNS)))
        array[:, : len(rows[0])] = rows
        array[-1, COLUMNS.index("known")] = 0.0
        array.flags.writeable = False
        return cls(array, initial_std)

    def __len__(self) -> int:
        """Network evaluations of one image: its image-steps."""
        return len(self.rows)

    def column(self, name: str) -> NDArray[np.float64]:
        """One column [rows], by its name in COLUMNS."""
        column: NDArray[np.float64] = self.rows[:, COLUMNS.index(name)]
        return column


def denoising(sigma: float) -> Row:
    """x += sigma^2 s(x, sigma): Tweedie's formula, which ends a table whose last level is sigma."""
    return (sigma, sigma**2, 0.0, 0.0, 0.0)


def snapshots(rows: int, count: int) -> tuple[int, ...]:
    """After how many of a table's rows an image is looked at: `count` times, evenly, the last time after the last.

    Args:
        rows: of the table, at least `count`.
        count: at least 0.
    """
    return tuple(-(-rows * number // count) for number in range(1, count + 1))
