"""The evaluation: a model and real images in, figures and pictures of its samples out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from models import files
from models.card import EXECUTION, ModelCard
from models.environment import environment
from models.evaluation.bench import Bench, Progress
from models.evaluation.classifier import CACHE, classifier_of
from models.evaluation.inception import Inception
from models.evaluation.nearest import neighbours_picture
from models.evaluation.plot import quality_png
from models.evaluation.record import FILE, Entry, Judge, Record, Subject
from models.evaluation.samples import Samples, key
from models.evaluation.settings import Setting, Told, settings_of
from models.guidance import UNGUIDED
from models.images import Pixels, grid, to_png
from models.labels import labels_of, weight_of
from models.samplers.settings import SamplerSettings
from models.sampling.execution import Execution
from models.score import ScoreModel
from models.store import ModelStore
from models.training.data.images import check_shape
from models.training.labelled import load_labelled

GRID, COLUMNS, ROWS = 64, 8, 10  # samples of a grid, its columns, and samples of a picture of neighbours
COMPARABLE = 1000  # samples whose distance every entry tells that has so many
SLOTS, SLOTS_OF_A_GPU = 64, 256  # samples drawn at a time


class EvaluationFailed(RuntimeError):
    """The evaluation cannot start or go on; the message says what to do."""


class Evaluation(BaseModel):
    """One run of `scoreserve evaluate`.

    Args:
        model: name of the model; its newest version is judged.
        data: the labelled data set: a directory or a file that `load_labelled` reads.
        store: directory of the model store.
        samplers: what is judged; see `settings_of`.
        evaluations: network evaluations an image that each sampler may spend; none leaves each as it is.
        labelled: whether samples of a model with classes are of one class after another, or of none in particular.
        guidance: weights, each of which is judged; none leaves samples as the card has it.
        guidance_interval: the lowest and the highest noise level that is guided; None for all.
        count: samples of each setting.
        seed: of the samples.
        out: directory of all that is written; None takes runs/evaluate/NAME-VERSION, or of a seed that is not 0,
            runs/evaluate/NAME-VERSION-seed-SEED; with an execution that comes last.
        device: torch device name.
        execution: how the network is run; None as the model's card has it, or eager in float32.
        inception_weights: weights of torch-fidelity's Inception; None leaves FID and Inception score out.
        into_card: whether the model's card is to tell what this run finds.
        cache: directory that keeps classifiers, and Inception's moments of the real images.
        command: what the figures were measured with.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    data: Path
    store: Path
    samplers: tuple[SamplerSettings, ...] = ()
    evaluations: tuple[PositiveInt, ...] = ()
    labelled: bool = True
    guidance: tuple[float, ...] = ()
    guidance_interval: tuple[float, float] | None = None
    count: int
    seed: int = 0
    out: Path | None = None
    device: str = "cpu"
    execution: str | None = Field(None, pattern=EXECUTION)
    inception_weights: Path | None = None
    into_card: bool = False
    cache: Path = CACHE
    command: str

    def run(self, on_progress: Progress = lambda _what, _done, _of: None) -> tuple[Record, Path]:
        """Judges every setting; returns all that is known now, and where it is.

        Samples are kept as they are drawn, so that an evaluation that is stopped goes on when it is run again.

        Args:
            on_progress: called with what is being done, how much of it is done, and how much it is.

        Raises:
            EvaluationFailed: with one clear line.
        """
        try:
            return self._run(on_progress)
        except (LookupError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            raise EvaluationFailed(" ".join(str(error).split())) from error

    def _run(self, on_progress: Progress) -> tuple[Record, Path]:
        store = ModelStore(self.store)
        card = store.card(self.model)
        wanted = settings_of(self.samplers, self.evaluations, card, told=self._told(card))
        model = ScoreModel.load(store, card, self.device)
        execution = Execution.named(self.execution or execution_of(card))
        model.executed = execution.of(model.network)
        inception = Inception(self.inception_weights, self.device) if self.inception_weights else None
        data = load_labelled(self.data)
        check_shape(self.data, data.train.images, card.image)
        if wanted[0].labels is not None and data.classes != len(card.classes or ()):
            known = f"{card.name} knows {len(card.classes or ())} classes, and {self.data} has {data.classes}"
            raise ValueError(f"{known}: other data, or --no-labels")
        name = f"{card.name}-{card.version}"
        if self.seed:
            name += f"-seed-{self.seed}"
        if self.execution:
            name += f"-{self.execution.replace(' ', '-')}"
        out = self.out or Path("runs") / "evaluate" / name

        def learning(done: int, of: int) -> None:
            on_progress("training a classifier of the real images", done, of)

        classifier = classifier_of(data, self.cache, self.device, learning)
        bench = Bench(data, classifier, inception, self.cache)
        record = earlier(
            out, self._subject(card, bench, str(execution)), bench.judge, environment(self.command, self.device)
        )
        found = []
        for setting in wanted:
            found.append(self._judge(setting, model, card, bench, out, on_progress))
            record.put(found[-1])
            compare(record, bench, out)
            record.write(out)  # after each, so that an interrupted run keeps what it found
        if picture := quality_png(record):
            files.write(out / "quality.png", picture)
        if self.into_card:
            metric = "quality" if str(execution) == execution_of(card) else f"quality in {execution}"
            store.add_metrics(card, {metric: record.quality(found, self.count)})
        return record, out

    def _told(self, card: ModelCard) -> list[Told]:
        """What samples are told of classes."""
        labels = tuple(range(len(card.classes))) if card.classes and self.labelled else labels_of(None, None, card)
        usual = weight_of(None, labels, card)
        weights = self.guidance or (1.0 if usual is None else usual,)
        if self.guidance_interval is not None and set(weights) == {1.0}:
            raise ValueError("--guidance-interval: there is no --guidance that it could limit")
        return [Told(labels, weight, self.guidance_interval) for weight in weights]

    def _subject(self, card: ModelCard, bench: Bench, execution: str) -> Subject:
        return Subject(
            name=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            execution=execution,
            seed=self.seed,
            train_images=len(bench.train),
            test_images=len(bench.test),
            train_sha256=bench.train_sha256,
        )

    def _judge(
        self,
        setting: Setting,
        model: ScoreModel,
        card: ModelCard,
        bench: Bench,
        out: Path,
        on_progress: Progress,
    ) -> Entry:
        """Draws what is missing of a setting's samples, and judges them."""
        steps_each, labels, guidance = setting.image_steps, setting.labels, setting.guidance
        digest = key(card.weights_sha256, setting.table, self.seed, labels, guidance)
        stem = f"{setting.sampler.name}-{steps_each}-{digest}"
        samples = Samples(out / "samples" / stem)
        kept, total = samples.count() * steps_each, self.count * steps_each

        def drawing(steps: int) -> None:
            on_progress(setting.label, kept + steps, total)

        slots = SLOTS if model.device.type == "cpu" else SLOTS_OF_A_GPU
        samples.draw(model, setting.table, self.seed, self.count, slots, drawing, labels, guidance)
        drawn = samples.read(self.count)
        pixels = drawn.pixels
        files.write(out / "grids" / f"{stem}.png", _grid(pixels, labels))
        neighbours = neighbours_picture(pixels[:ROWS], bench.train)
        files.write(out / "nearest" / f"{stem}.png", to_png(neighbours))
        return Entry(
            stem=stem,
            label=setting.label,
            sampler=setting.sampler.model_dump(exclude_none=True),
            labels=labels,
            guidance=None if guidance == UNGUIDED else guidance.weight,
            guidance_interval=None if guidance == UNGUIDED else self.guidance_interval,
            evaluations=steps_each,
            count=self.count,
            figures=bench.figures(pixels),
            by_class=None if labels is None else bench.by_class(pixels, np.resize(labels, self.count)),
            distance_1000=bench.distance(pixels[:COMPARABLE]) if self.count >= COMPARABLE else None,
            copying=bench.copying(pixels),
            inception=bench.inception_figures(pixels, on_progress),
            seconds=round(drawn.seconds, 2),
            image_steps=total,
            image_steps_per_second=round(total / drawn.seconds, 1),
            devices=drawn.devices,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self.command,
        )


def _grid(pixels: Pixels, labels: tuple[int, ...] | None) -> bytes:
    """The first samples as a PNG, with a column for each class where these are few."""
    columns = len(labels) if labels and len(labels) <= GRID // COLUMNS * 2 else COLUMNS
    return to_png(grid(pixels[: GRID // COLUMNS * columns], columns=columns, scale=2))


def execution_of(card: ModelCard) -> str:
    """How the network of a model is run where nothing else is said."""
    return card.execution or str(Execution())


def earlier(out: Path, subject: Subject, judge: Judge, machine: dict[str, Any]) -> Record:
    """The record in a directory, to be added to; a new one if there is none.

    Raises:
        ValueError: what is there is no record, or one of something else.
    """
    record = Record.read(out)
    if record is None:
        return Record(environment=machine, subject=subject, judge=judge)
    differing = [name for name, value in record.subject if value != getattr(subject, name)]
    if differing:
        raise ValueError(
            f"{out} holds the evaluation of {record.subject.name} version {record.subject.version}, and its "
            f"{', '.join(differing)} differ: give another --out"
        )
    if record.judge.key != judge.key:
        raise ValueError(
            f"{out / FILE} was judged by another classifier: move the file away, and evaluate the same settings again; "
            "the samples are kept"
        )
    record.environment = machine
    return record


def compare(record: Record, bench: Bench, out: Path) -> None:
    """Gives all entries the distance of equally many samples, and the record the floors that go with them."""
    record.compared = min(entry.count for entry in record.entries)
    record.entries = [_compared(entry, record.compared, bench, out) for entry in record.entries]
    needed = {record.compared, *(entry.count for entry in record.entries)}
    record.floors = [record.floor(count) or bench.floor(count) for count in sorted(needed)]


def _compared(entry: Entry, count: int, bench: Bench, out: Path) -> Entry:
    if count == entry.count:
        distance: float | None = entry.figures.distance
    elif count == COMPARABLE:
        distance = entry.distance_1000
    else:
        kept = Samples(out / "samples" / entry.stem)
        distance = bench.distance(kept.read(count).pixels) if kept.count() >= count else None
    return entry.model_copy(update={"compared": distance})
