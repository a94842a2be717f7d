"""The training job: data in, a published model out."""

import fcntl
import json
import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from models.card import ModelCard, NetworkSpec
from models.images import grid, to_png
from models.plan import plan
from models.samplers import COMPARED
from models.samplers.settings import bare
from models.samplers.table import Table
from models.sampling.sample import sample
from models.sentences import in_one_line
from models.store import ZOO, ModelStore
from models.training import presets
from models.training.averages import asked
from models.training.data.formats import DataError
from models.training.data.images import TrainingData, load_data
from models.training.data.toy import is_plane, two_gaussians
from models.training.distillation.flows import Flows
from models.training.origin import Origin, Start, as_begun, find, read_weights
from models.training.processes import join, leave
from models.training.publish import draft, ema_model, provenance, publish
from models.training.records.curve import loss_png
from models.training.records.events import Events
from models.training.records.scatter import POINTS, points_png
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer, TrainingDiverged

GRID = 64  # samples of a grid
LOCK = ".lock"


class TrainingFailed(RuntimeError):
    """The job cannot start or go on; the message says what to do."""


class TrainingStopped(Exception):
    """The job was asked to stop before its end, and has saved where it was."""


@dataclass(frozen=True)
class Task:
    """What a job has to do.

    Args:
        trainer: before its first step.
        published: what the card of the model will say.
        told: of the data, in a line.
    """

    trainer: Trainer
    published: presets.PublishedAs
    told: str


class Job(BaseModel, ABC):
    """One run that ends in a model, or one process's share of it under torchrun.

    Args:
        out: directory of the run.
        store: directory of the model store to publish into.
        overrides: training settings that replace those that the run starts from.
        average: decay of the average that is published; None for the one that the settings name.
        device: torch device name.
        save_every, grid_every: steps between checkpoints and between sample grids.
        command: what the card says it was made with.
    """

    model_config = ConfigDict(frozen=True)

    out: Path
    store: Path
    overrides: dict[str, Any]
    average: float | None = None
    device: str
    save_every: int
    grid_every: int
    command: str

    @abstractmethod
    def task(self, stopping: Callable[[], bool], say: Callable[[str], None]) -> Task:
        """What there is to do.

        Args:
            stopping, say: see `run`.

        Raises:
            LookupError, DataError, OSError, ValueError, TypeError, RuntimeError: it cannot be done; the message says
                why.
            TrainingStopped: `stopping` said so.
        """

    def run(
        self,
        on_start: Callable[[Trainer], None],
        on_step: Callable[[Trainer, Tensor], None],
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _line: None,
    ) -> tuple[ModelCard, Path] | None:
        """Trains (or goes on training) to the end and publishes; returns the card and its directory.

        Of several processes, the first one writes and publishes; to the others it returns None.

        Args:
            on_start, on_step: called before the first step and after every one, with its loss.
            stopping: asked after every step whether this is to be the last.
            say: told of the data, in a line.

        Raises:
            TrainingFailed: with one clear line.
            TrainingStopped: `stopping` said so; there is a checkpoint.
            KeyboardInterrupt: passed on, after a checkpoint.
        """
        try:
            return self._run(on_start, on_step, stopping, say)
        except BaseException as error:
            _clear_frames(error)  # they hold the trainer, and the trainer what `leave` ends
            raise
        finally:
            leave()

    def _run(
        self,
        on_start: Callable[[Trainer], None],
        on_step: Callable[[Trainer, Tensor], None],
        stopping: Callable[[], bool],
        say: Callable[[str], None],
    ) -> tuple[ModelCard, Path] | None:
        with _one_line():
            task = self.task(stopping, say)
            trainer = task.trainer
            table = grid_table(draft(trainer, task.published))
        say(task.told)
        with self.alone():
            with _one_line():
                if not trainer.resume():
                    trainer.choose_execution()
                    trainer.save()  # what cannot be written is found out now, not after hours
            return self._train(task, table, on_start, on_step, stopping)

    def trainer(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        origin: Start | None,
        student: tuple[NetworkSpec, Flows] | None = None,
    ) -> Trainer:
        """The trainer of this process; see there."""
        processes, device = join(self.device)
        if device.startswith("cuda"):
            torch.backends.cudnn.deterministic = True  # a run that goes on must round as it would have
        return Trainer(data.images, settings, self.out, device, processes, data.labels, origin, student)

    def _train(
        self,
        task: Task,
        table: Table,
        on_start: Callable[[Trainer], None],
        on_step: Callable[[Trainer, Tensor], None],
        stopping: Callable[[], bool],
    ) -> tuple[ModelCard, Path] | None:
        trainer = task.trainer
        on_start(trainer)
        events = Events(self.out / "tensorboard", trainer.step) if trainer.processes.first else None

        def after_step(trainer: Trainer, loss: Tensor) -> None:
            on_step(trainer, loss)
            if events:
                events.step(trainer)
            if trainer.step % self.save_every == 0:
                trainer.save()
            if events and trainer.step % self.grid_every == 0:
                self._draw(trainer, table, events)

        try:
            finished = trainer.train(after_step, stopping)
            trainer.save()
            if not events:
                return None
            if not finished:
                raise TrainingStopped(f"stopped after step {trainer.step} of {trainer.steps}")
            self._draw(trainer, table, events)
            return publish(trainer, task.published, ModelStore(self.store), self.command, self.average)
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingFailed(one_line(error)) from error
        except KeyboardInterrupt:
            with suppress(TrainingDiverged):  # then the checkpoint before is the one to go on from
                trainer.save()
            raise
        finally:
            if events:
                events.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other run is at work in the directory. A run that is killed leaves it to the next."""
        if os.environ.get("RANK", "0") != "0":  # the first process of several stands for all
            yield
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            file = (self.out / LOCK).open("a")
        except OSError as error:
            raise TrainingFailed(one_line(error)) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TrainingFailed(
                    f"another run is at work in {self.out}: wait for it, or use another --out"
                ) from error
            yield

    def _draw(self, trainer: Trainer, table: Table, events: Events) -> None:
        """Samples of the EMA weights, the loss curve, and the record of the run.

        The samples are always of the same seeds, and of each class in turn.
        """
        count = POINTS if is_plane(trainer.images) else GRID
        labels = range(len(trainer.classes)) if trainer.classes else None
        images = sample(ema_model(trainer), table, count=count, seed=0, slots=count, labels=labels)
        if not is_plane(trainer.images):
            (self.out / f"grid-{trainer.step:06d}.png").write_bytes(to_png(grid(images)))
            events.grid(grid(images), trainer.step)
        elif scatter := points_png(images, trainer.images):
            (self.out / f"points-{trainer.step:06d}.png").write_bytes(scatter)
        if curve := loss_png(trainer.losses):
            (self.out / "loss.png").write_bytes(curve)
        (self.out / "run.json").write_text(json.dumps(provenance(trainer, self.command), indent=2) + "\n")


class TrainingJob(Job):
    """One run of `scoreserve train`.

    Args:
        preset: name of a preset, or path of a preset file.
        data: the data set: a directory or a file that `load_images` reads; None if the preset makes its own.
        origin: the model whose weights the run starts from, `NAME` or `NAME/VERSION`, of `store` or of those that ship;
            None for fresh ones.
        skip_bad: whether pictures that cannot be read are left out.
    """

    preset: str
    data: Path | None
    origin: str | None = None
    skip_bad: bool = False

    def task(self, stopping: Callable[[], bool], say: Callable[[str], None]) -> Task:  # noqa: ARG002
        """See Job."""
        preset = presets.load(self.preset)
        settings = TrainingSettings.model_validate(preset.training.model_dump() | self.overrides)
        asked(self.average, settings.ema_decay)  # which is better known now than when it is published
        data = self._data(preset, settings)
        return Task(self.trainer(data, settings, self._origin()), preset.model, data.told)

    def _data(self, preset: presets.Preset, settings: TrainingSettings) -> TrainingData:
        """The training images, and their labels where the network is to be told them."""
        if preset.data is not None:
            return TrainingData(two_gaussians(preset.data.points), None, f"{preset.data.points:,} points")
        if self.data is None:
            raise DataError(f"{self.preset} is trained on images: say where they are (--data)")
        return load_data(self.data, preset.image, settings.classes, preset.model.classes, self.skip_bad)

    def _origin(self) -> Start | None:
        """The model that the run starts from, and its weights."""
        if self.origin is None:
            return None
        models = ModelStore(self.store, ZOO)
        card = find(as_begun(self.origin, self.out), models)
        return Origin.of(card), read_weights(card, models)


@contextmanager
def _one_line() -> Iterator[None]:
    """Inside, what cannot be is told in one line."""
    try:
        yield
    except ValidationError as error:
        raise TrainingFailed(in_one_line(error)) from error
    except (LookupError, DataError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise TrainingFailed(one_line(error)) from error


def _clear_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def grid_table(card: ModelCard) -> Table:
    """How the grids are sampled: quickly where every noise level may be asked for, else as the card says.

    Raises:
        SamplerRefused: the card's own sampler does not fit it, which is better known now than when it is published.
    """
    _, table = plan(None, card)
    if card.sigmas is None and card.denoises:
        _, table = plan(bare(COMPARED), card)
    return table


def one_line(error: Exception) -> str:
    """The message of an error as one line, however long torch has made it."""
    return " ".join(str(error).split())
