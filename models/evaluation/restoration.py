"""Restoring: real test images of which something is known, completed and held against what they were."""

import io
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from models import files
from models.environment import environment
from models.evaluation.bench import Progress
from models.evaluation.classifier import CACHE, CONFIDENT, Classifier, classifier_of
from models.evaluation.distances import evenly, frechet
from models.evaluation.evaluation import SLOTS, SLOTS_OF_A_GPU, EvaluationFailed, execution_of
from models.evaluation.settings import Setting, settings_of
from models.evaluation.tasks import Task, tasks_of
from models.images import Pixels, grid, to_png
from models.samplers.settings import SamplerSettings
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.execution import Execution
from models.sampling.projections import Unmasked
from models.sampling.sample import from_pixels, run, to_pixels
from models.score import ScoreModel
from models.store import ModelStore
from models.training.data.images import check_shape
from models.training.labelled import load_labelled

FILE = "restoration.json"
SEVERAL = 4  # completions of each of the images that get more than one
PICTURED = 16  # images of a picture
TICKS = (10, 30, 100, 300, 1000)  # of evaluations, in the plot


class Restored(BaseModel):
    """What was found of one sampler setting at one task.

    Args:
        task, label: names of both.
        usual: whether it is what runs when a request names no sampler.
        evaluations: network evaluations an image.
        same: share whose class, by the classifier, is that of the original.
        recognised: share with a probability above CONFIDENT for some class.
        distance: Frechet distance in the classifier's features to all real test images.
        off, best: root mean square distance to the original of one completion, and of the best of SEVERAL.
        diversity: root mean square distance between two completions of one image.
        jump: difference of neighbours across the mask's edge, over that of the originals; None without an edge.
        seconds: that an image took, beside others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    label: str
    usual: bool
    evaluations: int
    same: float
    recognised: float
    distance: float
    off: float
    best: float
    diversity: float
    jump: float | None
    seconds: float


class Restorations(BaseModel):
    """All that one run has found, with what real images come to.

    Args:
        model, version, weights_sha256: of the model.
        count: images of each task.
        several: how many of them got SEVERAL completions.
        real_same, real_recognised, real_distance: of the originals themselves.
        entries: a task and a setting each.
        environment, date, command: of the run.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    version: int
    weights_sha256: str
    count: int
    several: int
    real_same: float
    real_recognised: float
    real_distance: float
    entries: list[Restored] = []
    environment: dict[str, object]
    date: str
    command: str


class Restoration(BaseModel):
    """One run of `scoreserve evaluate --restore`; the fields are those of Evaluation.

    Args:
        tasks: names of those that are judged; none means all that fit the model's images.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    data: Path
    store: Path
    samplers: tuple[SamplerSettings, ...] = ()
    evaluations: tuple[PositiveInt, ...] = ()
    tasks: tuple[str, ...] = ()
    count: int
    seed: int = 0
    out: Path | None = None
    device: str = "cpu"
    cache: Path = CACHE
    command: str

    def run(self, on_progress: Progress = lambda _what, _done, _of: None) -> tuple[Restorations, Path]:
        """Judges every setting at every task; returns what it found, and the directory that it was written into.

        Raises:
            EvaluationFailed: with one clear line.
        """
        try:
            return self._run(on_progress)
        except (LookupError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            raise EvaluationFailed(" ".join(str(error).split())) from error

    def _run(self, on_progress: Progress) -> tuple[Restorations, Path]:
        store = ModelStore(self.store)
        card = store.card(self.model)
        tasks = tasks_of(self.tasks, card.image.height, card.image.width)
        (usual,) = settings_of([], [], card, known=True)[:1]
        wanted = settings_of(self.samplers, self.evaluations, card, known=True)
        if not self.samplers and all(setting.label != usual.label for setting in wanted):
            wanted = [usual, *wanted]  # it has evaluations of its own, and is what all others are held against
        model = ScoreModel.load(store, card, self.device)
        model.executed = Execution.named(execution_of(card)).of(model.network)
        data = load_labelled(self.data)
        check_shape(self.data, data.train.images, card.image)
        classifier = classifier_of(
            data,
            self.cache,
            self.device,
            lambda done, of: on_progress("training a classifier of the real images", done, of),
        )
        chosen = evenly(len(data.test.pixels), min(self.count, len(data.test.pixels)))
        originals, labels = data.test.pixels[chosen], data.test.labels.numpy()[chosen]
        real = classifier.features(data.test.pixels)
        probabilities = classifier.probabilities(originals)
        out = self.out or Path("runs") / "evaluate" / f"{card.name}-{card.version}"
        found = Restorations(
            model=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            count=len(originals),
            several=max(1, len(originals) // 10),
            real_same=float((probabilities.argmax(1) == labels).mean()),
            real_recognised=float((probabilities.max(1) > CONFIDENT).mean()),
            real_distance=frechet(classifier.features(originals), real),
            environment=environment(self.command, self.device),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self.command,
        )
        for setting in wanted:
            for task in tasks:
                completed = self._complete(model, setting, task, originals, labels, found.several, on_progress)
                judge = _Judge(task, originals, labels, classifier, real, self.seed)
                is_usual = setting.table.rows.tobytes() == usual.table.rows.tobytes()
                found.entries.append(judge.restored(setting, is_usual, *completed))
                name = f"{task.name.replace(' ', '-').replace('%', 'percent')}-{setting.sampler.name}"
                picture = judge.picture(completed[0])
                files.write(out / "restored" / f"{name}-{len(setting.table)}.png", to_png(picture))
                files.write(out / FILE, found.model_dump_json(indent=1).encode())
        if plotted := restoration_png(found):
            files.write(out / "restoration.png", plotted)
        return found, out

    def _complete(
        self,
        model: ScoreModel,
        setting: Setting,
        task: Task,
        originals: Pixels,
        labels: NDArray[np.int64],
        several: int,
        on_progress: Progress,
    ) -> tuple[Pixels, Pixels, float]:
        """A completion of each original, SEVERAL of the first `several`, and the seconds that an image took.

        A model that needs a label is told the original's own.
        """
        height, width = originals.shape[1:3]
        numbers = [*range(len(originals)), *[i for i in range(several) for _ in range(SEVERAL)]]
        chains = []
        for index, number in enumerate(numbers):
            known, projection = from_pixels(originals[number]), task.of(height, width, self.seed, number)
            label = int(labels[number]) if model.needs_label else None
            chains.append(Chain(setting.table, self.seed, index, known=known, projection=projection, label=label))
        slots, total = SLOTS if model.device.type == "cpu" else SLOTS_OF_A_GPU, len(chains) * len(setting.table)
        begun = time.perf_counter()
        run(Engine(model, slots), chains, lambda done: on_progress(f"{task.name}: {setting.label}", done, total))
        seconds = (time.perf_counter() - begun) / len(chains)
        pixels = np.stack([to_pixels(chain.x) for chain in chains if chain.x is not None])
        more = pixels[len(originals) :]
        return pixels[: len(originals)], more.reshape(several, SEVERAL, *more.shape[1:]), seconds


class _Judge:
    """Holds completions of one task against the originals.

    Args:
        task: what was known.
        originals: uint8 [n, h, w, c].
        labels: their classes [n].
        classifier: of the same data.
        real: its features of all real test images.
        seed: of the masks.
    """

    def __init__(
        self,
        task: Task,
        originals: Pixels,
        labels: NDArray[np.int64],
        classifier: Classifier,
        real: NDArray[np.float32],
        seed: int,
    ) -> None:
        self.task, self.originals, self.labels, self.classifier, self.real = task, originals, labels, classifier, real
        height, width = originals.shape[1:3]
        self.projections = [task.of(height, width, seed, number) for number in range(len(originals))]

    def restored(self, setting: Setting, usual: bool, pixels: Pixels, several: Pixels, seconds: float) -> Restored:
        """The figures of one completion of each original, and of SEVERAL [n, SEVERAL, h, w, c] of the first ones."""
        probabilities = self.classifier.probabilities(pixels)
        first = self.originals[: len(several), None]
        apart = [_distances(several[:, i], several[:, j]) for i in range(SEVERAL) for j in range(i)]
        return Restored(
            task=self.task.name,
            label=setting.label,
            usual=usual,
            evaluations=len(setting.table),
            same=float((probabilities.argmax(1) == self.labels).mean()),
            recognised=float((probabilities.max(1) > CONFIDENT).mean()),
            distance=frechet(self.classifier.features(pixels), self.real),
            off=float(_distances(pixels, self.originals).mean()),
            best=float(_distances(several, first).min(1).mean()),
            diversity=float(np.mean(apart)),
            jump=self._jump(pixels),
            seconds=round(seconds, 4),
        )

    def picture(self, pixels: Pixels) -> Pixels:
        """Originals, what is known of them, and completions, a row each."""
        shown = min(PICTURED, len(pixels))
        rows = [self.originals[:shown], self._seen(shown), pixels[:shown]]
        return grid(np.concatenate(rows), columns=shown, scale=2)

    def _seen(self, count: int) -> Pixels:
        seen = []
        for original, projection in zip(self.originals[:count], self.projections, strict=False):
            if isinstance(projection, Unmasked):
                seen.append(np.where(projection.repaint[0].numpy()[..., None], 96, original).astype(np.uint8))
            else:
                seen.append(to_pixels(projection.of(from_pixels(original)[None])[0]))
        return np.stack(seen)

    def _jump(self, pixels: Pixels) -> float | None:
        """Mean difference of neighbours of which one is repainted and one is not, over that of the originals."""
        if self.task.mask is None:
            return None
        made, real = 0.0, 0.0
        for projection, image, original in zip(self.projections, pixels, self.originals, strict=True):
            assert isinstance(projection, Unmasked)
            mask = projection.repaint[0].numpy()
            for axis in (0, 1):
                edge = np.diff(mask.astype(int), axis=axis) != 0
                made += float(abs(np.diff(image.astype(float), axis=axis))[edge].sum())
                real += float(abs(np.diff(original.astype(float), axis=axis))[edge].sum())
        return made / real if real else None


def _distances(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean square distances of images uint8 [..., h, w, c] that broadcast, in units of pixels in [0, 1]."""
    difference = (a.astype(float) - b.astype(float)) / 255
    distances: NDArray[np.float64] = np.sqrt((difference**2).mean((-3, -2, -1)))
    return distances


def restoration_png(found: Restorations) -> bytes | None:
    """Share of the same class against evaluations, a panel a task; None without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    tasks: Sequence[str] = list(dict.fromkeys(entry.task for entry in found.entries))
    columns = min(5, len(tasks))
    rows = -(-len(tasks) // columns)
    names = list(dict.fromkeys(entry.label.split()[0] for entry in found.entries))
    of_legend = max(1, 3 * columns // 2)
    height = 2.6 * rows + 0.25 * -(-(len(names) + 1) // of_legend)
    figure = Figure(figsize=(3.2 * columns, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    spent = [entry.evaluations for entry in found.entries]
    for axis, task in zip(axes, tasks, strict=False):
        for number, name in enumerate(names):
            of = sorted((e.evaluations, e.same) for e in found.entries if (e.task, e.label.split()[0]) == (task, name))
            axis.plot(*zip(*of, strict=True), "o-", color=f"C{number % 10}", markersize=3, linewidth=1, label=name)
        for entry in found.entries:
            if entry.task == task and entry.usual:
                axis.plot(entry.evaluations, entry.same, "k*", markersize=10, label="by default")
        axis.axhline(found.real_same, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=task, xscale="log", ylim=(0, 1.02))
        axis.set_xticks(TICKS, map(str, TICKS))
        axis.set_xlim(min(spent) / 1.2, max(spent) * 1.2)
        axis.minorticks_off()
    for axis in axes[len(tasks) :]:
        axis.remove()
    axes[0].set(xlabel="evaluations an image", ylabel="same class")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=of_legend)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
