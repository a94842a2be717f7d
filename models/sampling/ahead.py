"""The rows that come next, sent to the device together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers.table import COLUMNS
from models.sampling import noise
from models.sampling.chain import Chain
from models.sampling.memory import sent
from models.score import ScoreModel


class Guided(NamedTuple):
    """The slots whose next row is guided.

    Args:
        slots: int64 [g].
        weights: of guidance, [g, 1, 1, 1].
    """

    slots: Tensor
    weights: Tensor


class Row(NamedTuple):
    """The next row of every chain.

    Args:
        conditions: of the score, [n + g, 3 + f]: those of all slots, with their labels; then those of the `guided`
            ones without.
        guided: None if g is 0.
        sigma, drift, carry, noise, known, feedback, kept, aim: columns of the tables, [n, 1, 1, 1].
        noisy, known_noisy, holding, aiming: host's bool [n], whether `noise`, `known`, `feedback` or `kept`, and `aim`
            are not 0.
        keys: of the noise, int64 [n, 4], on the device; None on a CPU, which makes noise from what the host knows.
    """

    conditions: Tensor
    guided: Guided | None
    sigma: Tensor
    drift: Tensor
    carry: Tensor
    noise: Tensor
    known: Tensor
    feedback: Tensor
    kept: Tensor
    aim: Tensor
    noisy: NDArray[np.bool_]
    known_noisy: NDArray[np.bool_]
    holding: NDArray[np.bool_]
    aiming: NDArray[np.bool_]
    keys: Tensor | None


def ahead(chains: Sequence[Chain], count: int, model: ScoreModel, with_keys: bool) -> Iterator[Row]:
    """The next `count` rows of all chains, none of which has fewer left.

    All is on its way to the device before the first row is used, so that nothing else has to be between two rows.
    """
    cursors = [chain.cursor for chain in chains]
    table = np.stack([chain.table.rows[i : i + count] for i, chain in zip(cursors, chains, strict=True)], axis=1)
    told = _told(chains, table[:, :, 0], model)
    columns = sent(torch.from_numpy(table.transpose(0, 2, 1).astype(np.float32)), model.device)[..., None, None, None]
    noisy, known_noisy, fed, keeping, aiming = (
        table[:, :, COLUMNS.index(name)] != 0 for name in ("noise", "known", "feedback", "kept", "aim")
    )
    keys = None
    if with_keys:
        seeds, indices = [chain.seed for chain in chains], [chain.index for chain in chains]
        made = np.repeat(noise.keys(seeds, indices, cursors)[None], count, axis=0)
        made[:, :, -1] += np.arange(count)[:, None]
        keys = sent(torch.from_numpy(made), model.device)
    for i, (conditions, guided) in enumerate(told):
        sigma, drift, carry, noise_std, known_std, feedback, kept, aim = columns[i]
        yield Row(
            conditions,
            guided,
            sigma,
            drift,
            carry,
            noise_std,
            known_std,
            feedback,
            kept,
            aim,
            noisy[i],
            known_noisy[i],
            (fed | keeping)[i],
            aiming[i],
            None if keys is None else keys[i],
        )


def _told(
    chains: Sequence[Chain], sigmas: NDArray[np.float64], model: ScoreModel
) -> Iterator[tuple[Tensor, Guided | None]]:
    """What the network is told in each row: `conditions` and `guided` of a Row.

    Args:
        chains: n of them.
        sigmas: noise levels, [rows, n].
        model: whose network it is.
    """
    levels, which = np.unique(sigmas, return_inverse=True)
    labels = np.array([-1 if chain.label is None else chain.label for chain in chains]) + 1  # 0 is none
    kinds = int(labels.max()) + 1
    nameless = which.reshape(sigmas.shape) * kinds  # a number for each pair of level and label: that without a label
    guided = np.zeros(sigmas.shape, bool)
    for slot, chain in enumerate(chains):
        if chain.guidance.weight != 1:
            guided[:, slot] = chain.guidance.guides(sigmas[:, slot])
    wanted = [np.concatenate([pairs + labels, pairs[again]]) for pairs, again in zip(nameless, guided, strict=True)]
    pairs, index = np.unique(np.concatenate(wanted), return_inverse=True)
    known = [(float(levels[pair // kinds]), int(pair % kinds)) for pair in pairs]
    conditions = torch.stack([model.condition(sigma, label - 1 if label else None) for sigma, label in known])
    ends = np.cumsum([len(row) for row in wanted])
    of_rows = sent(torch.from_numpy(index), model.device).tensor_split(ends[:-1].tolist())
    if not guided.any():
        yield from ((conditions[of_row], None) for of_row in of_rows)
        return
    weights = np.array([chain.guidance.weight for chain in chains], np.float32)
    slots = guided.nonzero()[1]  # row by row
    ends = np.cumsum(guided.sum(1))[:-1]
    at = sent(torch.from_numpy(slots), model.device).tensor_split(ends.tolist())
    by = sent(torch.from_numpy(weights[slots]), model.device)[:, None, None, None].tensor_split(ends.tolist())
    for of_row, *again in zip(of_rows, at, by, strict=True):
        yield conditions[of_row], Guided(*again) if len(again[0]) else None
