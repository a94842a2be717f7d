"""The training loop: denoising score matching with EMA, resumable at any step."""

import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.card import NetworkSpec
from models.score import Preconditioning, build_network
from models.training.objectives import denoising_score_matching, stratified_log_normal
from models.training.optimizers import Optimizer, OptimizerName

CHECKPOINT = "checkpoint.pt"


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite; the last checkpoint was written before that."""


class TrainingSettings(BaseModel):
    """How a model is trained. The schedule runs over all `epochs`; a run resumed with more of them stretches it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: dict[str, Any] = Field(default_factory=dict, description="Arguments of the U-Net.")
    batch: int = Field(128, ge=1)
    epochs: float = Field(20, gt=0)
    optimizer: OptimizerName = "adam"
    learning_rate: float = Field(2e-3, gt=0)
    muon_learning_rate: float = Field(0.03, gt=0, description="Of the weights that Muon trains.")
    warmup_steps: int = Field(300, ge=0)
    decay: Literal["cosine", "linear"] = "cosine"
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Song & Ermon 2020, technique 5.")
    clip_norm: float = Field(1.0, gt=0)
    log_sigma_mean: float = -0.9
    log_sigma_std: float = Field(1.4, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0)


class Trainer:
    """Trains one network on images held in memory.

    Every random choice of a step comes from a generator seeded by (seed, step), and the order of the images from
    (seed, epoch); so a run that was interrupted continues as if it had not been.

    Args:
        images: uint8 [n, c, h, w].
        settings: how to train.
        directory: where the checkpoint is kept.
        device: torch device name.
    """

    def __init__(self, images: Tensor, settings: TrainingSettings, directory: Path, device: str = "cpu") -> None:
        self.images, self.settings, self.directory = images, settings, directory
        self.device = torch.device(device)
        pixels = images.float() / 255
        mean, std = round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
        self.spec = NetworkSpec(
            kind="unet",
            arguments={"image_channels": images.shape[1], **settings.network},
            data_mean=mean,
            data_std=std,
        )
        self.preconditioning = Preconditioning(mean, std)
        torch.manual_seed(settings.seed)
        self.network = build_network(self.spec).to(self.device)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.optimizer = Optimizer(
            settings.optimizer, self.network, settings.learning_rate, settings.muon_learning_rate
        )
        self.step = 0
        self._torn = False  # whether weights are ahead of the step count, as inside an update
        self.seconds = 0.0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []  # settings of earlier parts of the run, if they were others
        self.steps_per_epoch = max(1, len(images) // settings.batch)
        self.steps = max(1, round(settings.epochs * self.steps_per_epoch))

    def rate_factor(self, step: int) -> float:
        """The learning rate in parts of its peak: linear warm-up, then cosine or linear decay to zero at the end."""
        s = self.settings
        if step < s.warmup_steps:
            return (step + 1) / s.warmup_steps
        progress = min(1.0, (step - s.warmup_steps) / max(1, self.steps - s.warmup_steps))
        return (1 + math.cos(math.pi * progress)) / 2 if s.decay == "cosine" else 1 - progress

    def train(self, on_step: Callable[["Trainer", float], None]) -> None:
        """Runs to the last step, calling `on_step(self, loss)` after each.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        self.network.train()
        started = time.monotonic() - self.seconds
        for batch in self._batches():
            loss = self._step(batch)
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

    def save(self) -> Path:
        """Writes the checkpoint atomically and returns its path.

        After an interrupt in the middle of an update nothing is written: the checkpoint before it stays.
        """
        path = self.directory / CHECKPOINT
        if self._torn:
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
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        return path

    def resume(self) -> bool:
        """Continues from the checkpoint if there is one; says whether there was.

        Raises:
            ValueError: the checkpoint is damaged, or of another network.
        """
        path = self.directory / CHECKPOINT
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged or of another network: use another --out, or move it away") from error
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"].tolist()
        self.history = state.get("history", [])
        if state["settings"] != self.settings.model_dump():
            self.history.append({"until_step": self.step, "training": state["settings"]})
        return True

    def _batches(self) -> Iterator[Tensor]:
        """Images uint8 [batch, c, h, w] from the current step on; each epoch is a fresh permutation."""
        size = min(self.settings.batch, len(self.images))
        order, epoch = torch.empty(0), -1
        for step in range(self.step, self.steps):
            if epoch != step // self.steps_per_epoch:
                epoch = step // self.steps_per_epoch
                order = torch.randperm(len(self.images), generator=self._generator(epoch, stream=1))
            start = step % self.steps_per_epoch * size
            yield self.images[order[start : start + size]]

    def _step(self, batch: Tensor) -> float:
        s = self.settings
        generator = self._generator(self.step, stream=0)
        sigma = stratified_log_normal(len(batch), s.log_sigma_mean, s.log_sigma_std, generator)
        noise = torch.randn(batch.shape, generator=generator)
        x = batch.to(self.device).float() / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            loss = denoising_score_matching(
                self.network, self.preconditioning, x, sigma.to(self.device), noise.to(self.device)
            )
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        self._torn = True
        self.optimizer.step(self.rate_factor(self.step))
        self.ema.update_parameters(self.network)
        return float(loss.detach())

    def _generator(self, position: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed << 33) + (position << 1) + stream)
