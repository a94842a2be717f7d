"""The training loop: score matching with EMA, in one process or several, resumable at any step."""

import hashlib
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.card import NetworkSpec
from models.score import build_network
from models.training.data import images_sha256
from models.training.levels import NoiseLevels, stratified_log_normal, uniform
from models.training.objectives import Objective, ObjectiveName
from models.training.optimizers import Optimizer, OptimizerName
from models.training.processes import Processes

CHECKPOINT = "checkpoint.pt"


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite; the last checkpoint was written before that."""


class TrainingSettings(BaseModel):
    """How a model is trained. The schedule runs over all `epochs`; a run resumed with more of them stretches it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the network, and its `kind` if it is no unet."
    )
    batch: int = Field(128, ge=1)
    epochs: float = Field(20, gt=0)
    optimizer: OptimizerName = "adam"
    learning_rate: float = Field(2e-3, gt=0)
    muon_learning_rate: float = Field(0.03, gt=0, description="Of the weights that Muon trains.")
    warmup_steps: int = Field(300, ge=0)
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Song & Ermon 2020, technique 5.")
    clip_norm: float = Field(1.0, gt=0)
    objective: ObjectiveName = "edm"
    log_sigma_mean: float = Field(-0.9, description="Noise levels are log-normal, unless `levels` says otherwise.")
    log_sigma_std: float = Field(1.4, gt=0)
    levels: NoiseLevels | None = Field(None, description="The only noise levels, in place of log-normal ones.")
    flip: bool = Field(False, description="Whether half of the images, at random, are mirrored left to right.")
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = Field(False, description="torch.compile: minutes at the start, fewer milliseconds a step.")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _compilable(self) -> "TrainingSettings":
        if self.compile and self.objective in ("sliced", "exact"):
            raise ValueError(
                f"compile: torch.compile cannot differentiate twice, as the objective {self.objective} does"
            )
        return self


class Trainer:
    """Trains one network on images held in memory.

    Every random choice of a step comes from a generator seeded by (seed, step), and the order of the images from
    (seed, epoch); so a run that was interrupted continues as if it had not been. Several processes draw the same and
    take a part of each batch, so together they see what one alone would see.

    Args:
        images: uint8 [n, c, h, w].
        settings: how to train.
        directory: where the checkpoint is kept.
        device: torch device name.
        processes: this one among those that train together.

    Raises:
        TypeError, ValueError: the settings do not fit the network, the images or the number of processes, or there is
            a damaged checkpoint.
    """

    def __init__(
        self,
        images: Tensor,
        settings: TrainingSettings,
        directory: Path,
        device: str = "cpu",
        processes: Processes = Processes(),  # noqa: B008 (frozen)
    ) -> None:
        self.images, self.directory, self.processes = images, directory, processes
        self.device = torch.device(device)
        settings = settings.model_copy(update={"levels": self._complete(settings.levels)})
        self.settings = settings
        self.batch = min(settings.batch, len(images))
        if self.batch < processes.size:
            raise ValueError(f"a batch of {self.batch} images cannot be shared by {processes.size} processes")
        mean, std = mean_and_std(images)
        arguments = {"image_channels": images.shape[1], **settings.network}
        kind = arguments.pop("kind", "unet")
        self.sigmas = settings.levels.sigmas if settings.levels else None
        if kind == "refinenet-v1":
            arguments["levels"] = len(self.sigmas or ())
        self.spec = NetworkSpec(kind=kind, arguments=arguments, data_mean=round(mean, 4), data_std=round(std, 4))
        self.parametrisation = self.spec.parametrised(self.sigmas)
        torch.manual_seed(settings.seed)
        self.network = build_network(self.spec).to(self.device)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.optimizer = Optimizer(
            settings.optimizer, self.network, settings.learning_rate, settings.muon_learning_rate
        )
        self.objective = Objective(settings.objective, self.network, self.parametrisation)
        self._losses = processes.share_gradients(self.objective, self.device)
        if settings.compile:
            self._losses.compile()
        self.step = 0
        self._torn = False  # whether weights are ahead of the step count, as inside an update
        self.seconds = 0.0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []  # settings of earlier parts of the run, if they were others
        self.steps_per_epoch = max(1, len(images) // settings.batch)
        self.steps = max(1, round(settings.epochs * self.steps_per_epoch))

    def rate_factor(self, step: int) -> float:
        """The learning rate in parts of its peak: linear warm-up, then decay to zero at the end, or none."""
        s = self.settings
        if step < s.warmup_steps:
            return (step + 1) / s.warmup_steps
        if s.decay == "constant":
            return 1.0
        progress = min(1.0, (step - s.warmup_steps) / max(1, self.steps - s.warmup_steps))
        return (1 + math.cos(math.pi * progress)) / 2 if s.decay == "cosine" else 1 - progress

    @cached_property
    def images_sha256(self) -> str:
        """sha256 of the training images."""
        return images_sha256(self.images)

    def train(self, on_step: Callable[["Trainer", float], None], stopping: Callable[[], bool] = lambda: False) -> bool:
        """Runs to the last step, calling `on_step(self, loss)` after each; returns whether it got there.

        Once `stopping()` is true, in any of the processes, all of them return after the step they are at.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        self.network.train()
        started = time.monotonic() - self.seconds
        for batch in self._batches():
            loss, stop = self._step(batch, stopping)
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"the loss is {loss} at step {self.step}; lower the learning rate "
                    f"(now {self.settings.learning_rate}) and resume from the last checkpoint"
                )
            self.step += 1
            self.losses.append(loss)
            self._torn = False
            self.seconds = time.monotonic() - started
            on_step(self, loss)
            if stop and self.step < self.steps:
                return False
        return True

    def save(self) -> Path:
        """Writes the checkpoint atomically, in the first process, and returns its path.

        After an interrupt in the middle of an update nothing is written: the checkpoint before it stays.

        Raises:
            OSError: it cannot be written; the checkpoint before it stays.
        """
        path = self.directory / CHECKPOINT
        if self._torn or not self.processes.first:
            return path
        aside = path.with_suffix(".tmp")
        state = {
            "settings": self.settings.model_dump(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses),
            "history": self.history,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        try:
            with aside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns what the file raises into a RuntimeError
            aside.unlink(missing_ok=True)
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"the checkpoint cannot be written to {path}: {cause}; the one before it stays") from error
        return path

    def resume(self) -> bool:
        """Continues from the checkpoint if there is one; says whether there was.

        Raises:
            ValueError: the checkpoint is damaged, or of another network.
        """
        if not (self.directory / CHECKPOINT).exists():
            return False
        with self._checkpoint() as state:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"].tolist()
        self.history = state.get("history", [])
        earlier = TrainingSettings().model_dump() | state["settings"]  # one that is older than a setting lacks it
        if earlier != self.settings.model_dump():
            self.history.append({"until_step": self.step, "training": earlier})
        return True

    @contextmanager
    def _checkpoint(self) -> Iterator[dict[str, Any]]:
        """What the checkpoint holds; errors inside, of reading and of using it, become one that says what to do."""
        path = self.directory / CHECKPOINT
        try:
            yield torch.load(path, map_location=self.device, weights_only=True)
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged or of another network: use another --out, or move it away") from error

    def _complete(self, levels: NoiseLevels | None) -> NoiseLevels | None:
        """The levels, with what is left out taken from a run that is to be continued, else from the images."""
        if levels is None or levels.complete:
            return levels
        if (self.directory / CHECKPOINT).exists():
            with self._checkpoint() as state:
                earlier = state["settings"].get("levels") or {}
            if levels.model_dump(exclude_none=True).items() <= earlier.items():
                return NoiseLevels.model_validate(earlier)
        return levels.completed(self.images, self.device)

    def _batches(self) -> Iterator[Tensor]:
        """Images uint8 [batch, c, h, w] from the current step on; each epoch is a fresh permutation."""
        order, epoch = torch.empty(0), -1
        for step in range(self.step, self.steps):
            if epoch != step // self.steps_per_epoch:
                epoch = step // self.steps_per_epoch
                order = torch.randperm(len(self.images), generator=self._generator(epoch, stream=1))
            start = step % self.steps_per_epoch * self.batch
            yield self.images[order[start : start + self.batch]]

    def _step(self, batch: Tensor, stopping: Callable[[], bool]) -> tuple[float, bool]:
        """One update from a batch of which this process takes its part; its loss, and whether any process stops."""
        s, n, part = self.settings, len(batch), self.processes.part(len(batch))
        x, sigma, normals = self._draw(batch)
        factors = self.objective.factors(sigma.tolist())
        x, sigma, factors, normals = (values.to(self.device) for values in (x, sigma, factors, normals))
        torch.manual_seed(self._dropout_seed())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            losses = self._losses(x[part].float() / 255, sigma[part], factors[part], *normals[:, part])
        loss = losses.sum() / n
        self.network.zero_grad(set_to_none=True)
        (loss * self.processes.size).backward()  # gradients are averaged over the processes, losses are not
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        self._torn = True
        self.optimizer.step(self.rate_factor(self.step))
        self.ema.update_parameters(self.network)
        stop = torch.tensor(float(stopping()), device=self.device)
        whole, stops = self.processes.sum(torch.stack([loss.detach(), stop])).tolist()
        return whole, stops > 0

    def _draw(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All that is random in a step: images [n, c, h, w], noise levels [n], normal noise [normals, n, c, h, w]."""
        s, n, generator = self.settings, len(batch), self._generator(self.step, stream=0)
        if self.sigmas is None:
            sigma = stratified_log_normal(n, s.log_sigma_mean, s.log_sigma_std, generator)
        else:
            sigma = uniform(n, self.sigmas, generator)
        on_device = generator
        if self.device.type != "cpu":  # drawn where it is used, it need not be brought there
            on_device = torch.Generator(self.device).manual_seed(generator.initial_seed())
        normals = torch.randn((self.objective.normals, *batch.shape), generator=on_device, device=self.device)
        if s.flip:
            mirrored = torch.rand(n, generator=generator) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        return batch, sigma, normals

    def _generator(self, position: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed << 33) + (position << 1) + stream)

    def _dropout_seed(self) -> int:
        """Dropout draws from the global generator: so that gets a seed for every step and process, too."""
        place = repr((self.settings.seed, self.step, self.processes.rank)).encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest())


def mean_and_std(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images, in [0, 1] units, without a copy as floats."""
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * values).sum() / counts.sum())
    variance = float((counts * (values - mean) ** 2).sum() / (counts.sum() - 1))
    return mean, math.sqrt(variance)
