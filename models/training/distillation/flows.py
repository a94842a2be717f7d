"""Flows: ways from noise to an image down a teacher's probability flow, and the levels at which they were looked at.

Each is all that a consistency model has to know of it: from whichever of its noise levels, it is to see the same end.
They are made once and kept in files, since making one costs a training step or two, and each is learned from often.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.card import ModelCard
from models.cores import usable_cores
from models.files import write_json
from models.plan import plan
from models.samplers.settings import bare
from models.sampling.chain import Chain, initial, quantize
from models.sampling.choice import choose
from models.sampling.engine import Engine
from models.sampling.execution import Execution
from models.sampling.pieces import one_each
from models.score import ScoreModel

SAMPLER = "adams_bashforth"  # the best of those that add no noise, at few levels
SLOTS, GPU_SLOTS = 64, 512  # flows that are advanced together
ENDS, NOISES, MADE = "ends.npy", "noises.npy", "flows.json"


class FlowsStopped(Exception):
    """Their making was asked to stop; those that are made are kept."""


class FlowSettings(BaseModel):
    """How many flows there are, and how finely the teacher follows them.

    Args:
        count: of them. Each is a picture that the student learns from, at all of its noise levels.
        levels: evaluations of the teacher for one.
        seed: of their noise and labels.
        execution: how the teacher is run; what is left out is found by measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=1)
    levels: int = Field(ge=2, le=1000)
    seed: int = Field(0, ge=0, lt=2**31)
    execution: str | None = Field(None, pattern="^(eager|channels_last) (float32|bfloat16)$")


@dataclass(frozen=True, eq=False)
class Flows:
    """Flows of a teacher.

    Args:
        sigmas: the noise levels at which they were looked at, descending from the largest.
        ends: where they end, uint8 [n, c, h, w].
        noises: (x_sigma - end) / sigma at each level, float16 [n, levels, c, h, w]; in a file, of which is read what is
            needed.
        labels: int64 [n], what the teacher was told, with the number of classes for nothing; None without classes.
        made: how, as a card says it.
    """

    sigmas: tuple[float, ...]
    ends: Tensor
    noises: NDArray[np.float16]
    labels: Tensor | None
    made: dict[str, Any]

    def noise(self, flows: Tensor, levels: Tensor) -> Tensor:
        """float32 [k, c, h, w] of some flows, each at a level of its own; both int64 [k]."""
        return torch.from_numpy(self.noises[flows.numpy(), levels.numpy()]).float()


class Maker:
    """Makes a teacher's flows, or goes on making them where it was stopped.

    Args:
        model: the teacher.
        card: of it.
        settings: of the flows.
        untold: share of the flows that are of no class, where the teacher knows classes.
        directory: takes the files.
    """

    def __init__(
        self, model: ScoreModel, card: ModelCard, settings: FlowSettings, untold: float, directory: Path
    ) -> None:
        self.model, self.card, self.settings, self.directory = model, card, settings, directory
        _, self.table = plan(bare(SAMPLER).model_copy(update={"levels": settings.levels}), card)
        sigmas = self.table.column("sigma").tolist()
        self.sigmas = tuple(sigma for sigma in sigmas if sigma > card.sigma_min * (1 + 1e-6))  # there f(x) is x
        self.slots = min(settings.count, GPU_SLOTS if model.device.type == "cuda" else SLOTS)
        self.labels = _labels(settings, model.classes, untold)
        self._of = {
            "teacher": f"{card.name} version {card.version}",
            "weights_sha256": card.weights_sha256,
            "sampler": SAMPLER,
            **settings.model_dump(),
            "untold": untold,
        }

    def make(self, on_made: Callable[[int], None], stopping: Callable[[], bool] = lambda: False) -> Flows:
        """All flows.

        Args:
            on_made: told now and then how many there are.
            stopping: asked as often whether to stop.

        Raises:
            FlowsStopped: `stopping` said so.
            ValueError: the directory has flows of another teacher, or of other settings.
        """
        made, execution = self._begun()
        count, shape = self.settings.count, self.model.image.chw
        ends = self._file(ENDS, np.uint8, (count, *shape), made)
        noises = self._file(NOISES, np.float16, (count, len(self.sigmas), *shape), made)
        self.model.executed = execution.of(self.model.network)
        engine = Engine(self.model, self.slots, threads=usable_cores() if self.model.device.type == "cpu" else 1)
        engine.rows = 1  # every level is looked at
        with one_each():
            while made < count:
                if stopping():
                    raise FlowsStopped(f"stopped after {made:,} of {count:,} flows")
                n = min(self.slots, count - made)
                end, noise = self._follow(engine, range(made, made + n))
                ends[made : made + n], noises[made : made + n] = end.numpy(), noise.numpy()
                made += n
                self._record(made, execution)
                on_made(made)
        self.model.executed = None
        how = {**self._of, "execution": str(execution)}
        return Flows(self.sigmas, torch.from_numpy(np.array(ends)), noises, self.labels, how)

    def _follow(self, engine: Engine, numbers: range) -> tuple[Tensor, Tensor]:
        """Ends uint8 [n, c, h, w] and noises float16 [n, levels, c, h, w] of flows, all advanced together."""
        told = None if self.labels is None else self.labels[numbers.start : numbers.stop].tolist()
        labels = [None if told is None or told[i] == self.model.classes else told[i] for i in range(len(numbers))]
        chains = [
            Chain(self.table, self.settings.seed, number, label=label)
            for number, label in zip(numbers, labels, strict=True)
        ]
        states = [initial(chains, self.model.image.chw)]
        engine.admit(chains)
        while engine.chains:
            engine.step()
            states.append(torch.stack([self._state(engine, chain) for chain in chains]).cpu())
        ends = quantize(states[-1]).permute(0, 3, 1, 2).contiguous()
        clean, sigmas = ends.float() / 255, self.table.column("sigma").tolist()
        noises = [(x - clean) / sigma for x, sigma in zip(states, sigmas, strict=False)]
        return ends, torch.stack(noises[: len(self.sigmas)], 1).half()

    @staticmethod
    def _state(engine: Engine, chain: Chain) -> Tensor:
        state = engine.state(chain)
        assert state is not None  # it has been in a slot
        return state

    def _begun(self) -> tuple[int, Execution]:
        """How many flows there are already, and how the teacher is run: always alike, since bits depend on it."""
        path = self.directory / MADE
        if path.exists():
            found = json.loads(path.read_text())
            if found["of"] != self._of:
                raise ValueError(
                    f"{self.directory} has flows of another teacher, or of other settings: use another --out"
                )
            return found["made"], Execution.named(found["execution"])
        if self.settings.execution is not None:
            return 0, Execution.named(self.settings.execution)
        among = [Execution(mode, dtype) for dtype in ("float32", "bfloat16") for mode in ("eager", "channels_last")]
        with one_each() as threads:
            chosen = choose(self.model, self.table, self.slots, exact=False, among=among, threads=threads)
        return 0, chosen.execution

    def _file(self, name: str, dtype: Any, shape: tuple[int, ...], made: int) -> NDArray[Any]:
        path = self.directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        return open_memmap(path, "r+") if made else open_memmap(path, "w+", dtype, shape)

    def _record(self, made: int, execution: Execution) -> None:
        write_json(self.directory / MADE, {"made": made, "execution": str(execution), "of": self._of})


def _labels(settings: FlowSettings, classes: int, untold: float) -> Tensor | None:
    """What the teacher is told of each flow, int64 [n]; None without classes."""
    if not classes:
        return None
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.randint(classes, (settings.count,), generator=generator)
    return torch.where(torch.rand(settings.count, generator=generator) < untold, classes, drawn)
