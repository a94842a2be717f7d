"""The training loop: score matching with EMA, in one process or several, resumable at any step."""

import hashlib
import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.card import NetworkSpec
from models.score import build_network
from models.training.averages import Averages, lengths
from models.training.checkpoint import BEFORE, CHECKPOINT, AnotherRun, Checkpoint
from models.training.data.batches import Batch, Batches, Draw
from models.training.data.images import Labels, images_sha256
from models.training.distillation.batches import FlowBatches
from models.training.distillation.flows import Flows
from models.training.execution import Gradients, Precision, StepExecution, candidates, fastest, has_dropout
from models.training.levels import NoiseLevels
from models.training.objectives import TWICE, Objective
from models.training.optimizers import Optimizer
from models.training.origin import Origin, Start, start_from
from models.training.processes import Processes
from models.training.settings import TrainingSettings

LOOK = 20  # steps between two looks at a device that is waited for: at the losses, and at who asks to stop


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite; the last checkpoint was written before that."""


class Trainer:
    """Trains one network on images held in memory.

    Every random choice of a step comes from a generator seeded by (seed, step), and the order of the images from
    (seed, epoch); so a run that was interrupted continues as if it had not been. Several processes draw the same and
    take a part of each batch, so together they see what one alone would see.

    Args:
        images: uint8 [n, c, h, w].
        settings: how to train. Without `execution` a step is run plainly, until `choose_execution` finds a faster way.
        directory: where the checkpoint is kept.
        device: torch device name.
        processes: this one among those that train together.
        labels: what is on the images, for a network with classes.
        origin: the model whose weights it starts from, and these; None for fresh ones.
        student: the network of a distillation, and the flows that it learns in place of the images, which are their
            ends.

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
        labels: Labels | None = None,
        origin: Start | None = None,
        student: tuple[NetworkSpec, Flows] | None = None,
    ) -> None:
        self.images, self.directory, self.processes = images, directory, processes
        self.checkpoint = Checkpoint(directory)
        self.device = torch.device(device)
        self.look = 1 if self.device.type == "cpu" else LOOK  # steps between two looks at what is on the device
        settings = settings.model_copy(update={"levels": self._complete(settings.levels)})
        self.settings = settings
        self.batch = min(settings.batch, len(images))
        if self.batch < processes.size:
            raise ValueError(f"a batch of {self.batch} images cannot be shared by {processes.size} processes")
        self.classes: tuple[str, ...] = labels.names if labels and settings.classes else ()
        if settings.classes and not self.classes:
            raise ValueError("classes = true needs data with labels")
        if (student is None) == (settings.objective == "consistency"):
            raise ValueError("the objective consistency is that of `scoreserve distill`, which has no other")
        self.origin = origin[0] if origin else None
        self.sigmas = settings.levels.sigmas if settings.levels else None
        self.flows = student[1] if student else None
        self.spec = student[0] if student else self._spec()
        self.parametrisation = self.spec.parametrised(self.sigmas)
        torch.manual_seed(settings.seed)
        self.network = build_network(self.spec).to(self.device)
        check_sides(self.network, images)
        if origin:
            start_from(self.network, origin[1], origin[0])
        self.averages = Averages(self.network, lengths(settings.ema_decay))
        self.optimizer = Optimizer(
            settings.optimizer, self.network, settings.learning_rate, settings.muon_learning_rate
        )
        self.objective = Objective(settings.objective, self.network, self.parametrisation)
        draw = Draw(
            settings.seed,
            settings.log_sigma_mean,
            settings.log_sigma_std,
            self.sigmas,
            settings.flip,
            settings.label_dropout,
        )
        indices = labels.indices if labels and self.classes else None
        how = len(self.classes), self.batch, draw, self.objective, self.device, processes
        self.batches = FlowBatches(self.flows, *how) if self.flows else Batches(images, indices, *how)
        self.step = 0
        self._torn = False  # whether weights are ahead of the step count, as inside an update
        self.seconds = 0.0
        self._losses: list[float] = []
        self._unread: list[Tensor] = []  # losses that are still on the device
        self.history: list[dict[str, Any]] = []  # settings of earlier parts of the run, if they were others
        self.steps_per_epoch = self.batches.per_epoch
        self.steps = max(1, round(settings.epochs * self.steps_per_epoch))

    @property
    def ema(self) -> AveragedModel:
        """The average that is published unless another one is asked for."""
        return self.averages.models[self.settings.ema_decay]

    @property
    def losses(self) -> list[float]:
        """The loss of every step so far."""
        if self._unread:
            self._losses += torch.stack(self._unread).tolist()
            self._unread = []
        return self._losses

    @property
    def execution(self) -> StepExecution:
        """How a step is run."""
        if self.settings.execution is not None:
            return self.settings.execution
        return StepExecution(precision="bfloat16" if self.settings.precision == "bfloat16" else "float32")

    def choose_execution(self) -> None:
        """Finds the fastest execution of a step by measurement, unless the settings name one; before the first step.

        bfloat16 is for the objectives `edm` and `consistency` only, whose network's output is of the same size at every
        noise level.
        """
        s = self.settings
        if s.execution is not None:
            return
        alone = self.processes.size == 1 and not s.compile and not has_dropout(self.network)
        once = s.objective not in TWICE  # which sets what all threads share
        even = s.objective in ("edm", "consistency")
        precisions: tuple[Precision, ...] = ("float32", "bfloat16") if even else ("float32",)
        if s.precision != "auto":
            precisions = (s.precision,)
        among = candidates(self.device, precisions, in_pieces=alone and once)
        batch, warm = self.batches.batch(0), set[StepExecution]()

        def seconds(execution: StepExecution) -> float:
            gradients = self._gradients(execution)
            try:
                if execution not in warm:
                    gradients.seconds(batch)
                    warm.add(execution)
                taken = gradients.seconds(batch)
            finally:
                gradients.close()
                self.network.zero_grad(set_to_none=True)
            return float(self.processes.sum(torch.tensor(taken, device=self.device)))

        self.network.train()
        self.settings = s.model_copy(update={"execution": fastest(among, seconds)})

    @cached_property
    def images_sha256(self) -> str:
        """sha256 of the training images."""
        return images_sha256(self.images)

    def train(self, on_step: Callable[["Trainer", Tensor], None], stopping: Callable[[], bool] = lambda: False) -> bool:
        """Runs to the last step, calling `on_step(self, loss)` after each; returns whether it got there.

        The loss that `on_step` is given is on the device. Once `stopping()` is true, in any of the processes, all of
        them return after the step they are at, or the next at which they look.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        self.network.train()
        gradients = self._gradients(self.execution)
        unchecked = list[Tensor]()
        started = time.monotonic() - self.seconds
        try:
            for batch in self.batches.ahead(self.step, self.steps):
                loss = self._step(batch, gradients)
                unchecked.append(loss)
                last = self.step + 1 == self.steps
                looks = last or (self.step + 1) % self.look == 0
                if looks:
                    self._check(unchecked)
                    unchecked = []
                stop = looks and self.processes.any(stopping(), self.device)
                self.step += 1
                self._unread.append(loss)
                self._torn = False
                self.seconds = time.monotonic() - started
                on_step(self, loss)
                if stop and not last:
                    return False
        finally:
            gradients.close()
        return True

    def save(self) -> Path:
        """Writes the checkpoint atomically, in the first process, and returns its path.

        After an interrupt in the middle of an update nothing is written: the checkpoint before it stays.

        Raises:
            TrainingDiverged: the weights are not finite; the checkpoint before it stays.
            OSError: it cannot be written; the checkpoint before it stays.
        """
        if self._torn or not self.processes.first:
            return self.checkpoint.path
        if not all(bool(value.isfinite().all()) for value in self.network.state_dict().values()):
            raise TrainingDiverged(f"the weights are not finite after step {self.step}; {self._advice()}")
        state = {
            "settings": self.settings.model_dump(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses),
            "history": self.history,
            "data": self._data(),
            "spec": self.spec.model_dump(exclude_unset=True),
            "origin": None if self.origin is None else self.origin.model_dump(),
            "network": self.network.state_dict(),
            "averages": self.averages.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.checkpoint.write(state)
        return self.checkpoint.path

    def resume(self) -> bool:
        """Continues from the checkpoint if there is one; says whether there was.

        Raises:
            ValueError: the checkpoint is damaged, or of another network, or of a run that this one does not go on:
                on other images, with another objective or from other weights.
        """
        if not self.checkpoint.exists():
            return False
        with self.checkpoint.read(self.device) as state:
            self._check_run(state)
            self.network.load_state_dict(state["network"])
            self.averages.load_state_dict(state["averages"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.origin = Origin.model_validate(state["origin"]) if state["origin"] else None
            self._see_as(NetworkSpec.model_validate(state["spec"]))
            execution = state["settings"].get("execution")
        self.step, self.seconds, self._losses = state["step"], state["seconds"], state["losses"].tolist()
        self.history = state["history"]
        if self.settings.execution is None and execution is not None:  # another one would round otherwise
            if self.settings.precision != "auto":
                execution = {**execution, "precision": self.settings.precision}
            self.settings = self.settings.model_copy(update={"execution": StepExecution.model_validate(execution)})
        earlier = TrainingSettings().model_dump() | state["settings"]  # one that is older than a setting lacks it
        if earlier != self.settings.model_dump():
            self.history.append({"until_step": self.step, "training": earlier})
        return True

    @property
    def changed(self) -> list[str]:
        """Names of the settings that are others than before the last interruption, if that was at this step."""
        if not self.history or self.history[-1]["until_step"] != self.step:
            return []
        earlier, now = self.history[-1]["training"], self.settings.model_dump()
        return [name for name in now if now[name] != earlier[name]]

    def _see_as(self, spec: NetworkSpec) -> None:
        """Takes another spec of the same network: for the mean and the deviation that it was made for."""
        self.spec, self.parametrisation = spec, spec.parametrised(self.sigmas)
        self.objective.parametrisation = self.parametrisation

    def _check_run(self, state: dict[str, Any]) -> None:
        """Raises AnotherRun unless a checkpoint is of a run that this one goes on."""
        path = self.checkpoint.path
        settings = TrainingSettings().model_dump() | state["settings"]
        instead = "use another --out" + (", and --from to start from published weights" if not self.origin else "")
        for what, then, now in (
            ("the images", state["data"], self._data()),
            ("the objective", settings["objective"], self.settings.objective),
        ):
            if then != now:
                raise AnotherRun(f"{path} is of a run that differs in {what}: {then}, not {now}; {instead}")
        origin = Origin.model_validate(state["origin"]) if state["origin"] else None
        if self.origin is not None and origin != self.origin:
            remedy = f"name {origin.name}/{origin.version}" if origin else "leave --from out"
            raise AnotherRun(
                f"{path} is of a run that started from {named(origin)}, not from {named(self.origin)}; "
                f"{remedy} to go on with it, or use another --out"
            )

    def _data(self) -> str:
        """What a checkpoint keeps of the training data: enough to tell others."""
        shape = " x ".join(map(str, self.images.shape[1:]))
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"{len(self.images)} of {shape}{classes} (sha256 {self.images_sha256[:12]})"

    def _complete(self, levels: NoiseLevels | None) -> NoiseLevels | None:
        """The levels, with what is left out taken from a run that is to be continued, else from the images."""
        if levels is None or levels.complete:
            return levels
        if self.checkpoint.exists():
            with self.checkpoint.read(self.device) as state:
                earlier = state["settings"].get("levels") or {}
            if levels.model_dump(exclude_none=True).items() <= earlier.items():
                return NoiseLevels.model_validate(earlier)
        return levels.completed(self.images, self.device)

    def _spec(self) -> NetworkSpec:
        """The network, made for the mean and the deviation of the images, or of those that its weights are from."""
        arguments = {"image_channels": self.images.shape[1], **self.settings.network}
        kind = arguments.pop("kind", "unet")
        if kind == "refinenet-v1":
            arguments["levels"] = len(self.sigmas or ())
        if self.classes:
            arguments["classes"] = len(self.classes)
        mean, std = mean_and_std(self.images)
        if self.origin is not None and self.origin.data_std is not None:
            mean, std = self.origin.data_mean, self.origin.data_std
        if round(std, 4) == 0:
            raise ValueError(
                "all pixels of all training images are alike: there is nothing to learn, give other images"
            )
        return NetworkSpec(kind=kind, arguments=arguments, data_mean=round(mean, 4), data_std=round(std, 4))

    def _gradients(self, execution: StepExecution) -> Gradients:
        return Gradients(self.objective, execution, self.device, self.processes, self.settings.compile)

    def _step(self, batch: Batch, gradients: Gradients) -> Tensor:
        """One update from this process's part of a batch; the loss of the whole."""
        torch.manual_seed(self._dropout_seed())
        loss = gradients(batch, self.batch)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self._torn = True
        self.optimizer.step(self.settings.rate_factor(self.step, self.steps))
        self.averages.update(self.network, self.step)
        return self.processes.sum(loss)

    def _check(self, losses: list[Tensor]) -> None:
        """Raises TrainingDiverged unless all losses are finite; the last is of the step that is being made."""
        for back, loss in enumerate(torch.stack(losses).tolist()[::-1]):
            if not math.isfinite(loss):
                raise TrainingDiverged(f"the loss is {loss} at step {self.step - back}; {self._advice()}")

    def _advice(self) -> str:
        """What to do about a run that has diverged."""
        return (
            f"lower the learning rate (now {self.settings.learning_rate}) and resume from the last checkpoint; if that "
            f"diverges at once, from the one before: put {BEFORE} in place of {CHECKPOINT}"
        )

    def _dropout_seed(self) -> int:
        """Dropout draws from the global generator: so that gets a seed for every step and process, too."""
        place = repr((self.settings.seed, self.step, self.processes.rank)).encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest())


def named(origin: Origin | None) -> str:
    """What a run started from."""
    return f"{origin.name} version {origin.version}" if origin else "fresh weights"


def check_sides(network: nn.Module, images: Tensor) -> None:
    """Raises ValueError if a network halves the sides of images [n, c, h, w] more often than they can be halved."""
    multiple = getattr(network, "side_multiple", 1)
    height, width = images.shape[2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"images of {height} x {width} do not fit this network, whose sides are multiples of {multiple}: give it "
            "fewer channels or another patch, or the images another size"
        )


def mean_and_std(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images, in [0, 1] units, without a copy as floats."""
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * values).sum() / counts.sum())
    variance = float((counts * (values - mean) ** 2).sum() / (counts.sum() - 1))
    return mean, math.sqrt(variance)
