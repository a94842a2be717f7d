"""The rows that come next, sent to the device together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers.tables import COLUMNS
from models.sampling import noise
from models.sampling.chain import Chain
from models.sampling.memory import sent
from models.score import ScoreModel


class Row(NamedTuple):
    """The next row of every chain.

    Args:
        conditions: of the score, [n, 3 + f].
        sigma, drift, carry, noise, known, feedback: columns of the tables, [n, 1, 1, 1].
        noisy, known_noisy, feeding: host's bool [n], whether `noise`, `known` and `feedback` are not 0.
        keys: of the noise, int64 [n, 4], on the device; None on a CPU, which makes noise from what the host knows.
    """

    conditions: Tensor
    sigma: Tensor
    drift: Tensor
    carry: Tensor
    noise: Tensor
    known: Tensor
    feedback: Tensor
    noisy: NDArray[np.bool_]
    known_noisy: NDArray[np.bool_]
    feeding: NDArray[np.bool_]
    keys: Tensor | None


def ahead(chains: Sequence[Chain], count: int, model: ScoreModel, with_keys: bool) -> Iterator[Row]:
    """The next `count` rows of all chains, none of which has fewer left.

    All is on its way to the device before the first row is used, so that nothing else has to be between two rows.
    """
    cursors = [chain.cursor for chain in chains]
    table = np.stack([chain.table.rows[i : i + count] for i, chain in zip(cursors, chains, strict=True)], axis=1)
    sigmas, which = np.unique(table[:, :, 0], return_inverse=True)
    conditions = torch.stack([model.condition(sigma) for sigma in sigmas.tolist()])
    index = sent(torch.from_numpy(which.reshape(count, len(chains))), model.device)
    columns = sent(torch.from_numpy(table.transpose(0, 2, 1).astype(np.float32)), model.device)[..., None, None, None]
    noisy, known_noisy, feeding = (table[:, :, COLUMNS.index(name)] != 0 for name in ("noise", "known", "feedback"))
    keys = None
    if with_keys:
        seeds, indices = [chain.seed for chain in chains], [chain.index for chain in chains]
        made = [noise.keys(seeds, indices, [cursor + i for cursor in cursors]) for i in range(count)]
        keys = sent(torch.from_numpy(np.stack(made)), model.device)
    for i in range(count):
        sigma, drift, carry, noise_std, known_std, feedback = columns[i]
        yield Row(
            conditions[index[i]],
            sigma,
            drift,
            carry,
            noise_std,
            known_std,
            feedback,
            noisy[i],
            known_noisy[i],
            feeding[i],
            None if keys is None else keys[i],
        )
