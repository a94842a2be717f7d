"""evaluation.json: what was found of a model's samples, over all runs that wrote into one directory."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from models import files
from models.evaluation.figures import ByClass, Figures
from models.evaluation.inception import InceptionFigures
from models.evaluation.nearest import Copying
from models.sentences import in_one_line

FILE = "evaluation.json"
SHOWN = {"sampler", "labels", "guidance", "guidance_interval", "evaluations", "by_class", "inception"}  # in a card
WHAT = (
    "samples as a classifier of the real images sees them: Frechet distance of its features to those of the real test "
    "images (comparable with no FID), precision and recall of the same, share with a probability above 0.9, share of "
    "each class"
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(_Part):
    """What all figures of a record are about: a model's weights and how they are run, a seed, and the real images."""

    name: str
    version: int
    weights_sha256: str
    execution: str = "eager float32"
    seed: int
    train_images: int
    test_images: int
    train_sha256: str


class Judge(_Part):
    """The classifier: its key, what it makes of the real test images, and which probability it is sure from."""

    key: str
    test_accuracy: float
    test_recognised: float
    test_classes: list[float]
    confident: float


class Floor(_Part):
    """The figures of `count` real training images (of `images`, where there are no more): samples come near at best."""

    count: int
    images: int
    figures: Figures
    by_class: ByClass | None = None


class Entry(_Part):
    """What was found of one sampler setting.

    Args:
        stem: names the files of the setting: its samples, its grid, its neighbours.
        label: names it in tables.
        sampler: the settings, complete.
        labels: the classes of samples 0, 1 and so on, repeated; None of samples of no class in particular.
        guidance, guidance_interval: how they were led there; None for not at all, and at all noise levels.
        evaluations: network evaluations an image; a row that is guided is two.
        count: samples that the figures are of.
        figures: what the classifier makes of them.
        by_class: what it makes of their labels.
        distance_1000: Frechet distance of the first 1,000; None of fewer.
        compared: Frechet distance of as many as the entry with the fewest has, for comparing; None if they are gone.
        copying: how near they are to the training images.
        inception: FID and Inception score, if they were asked for.
        seconds, image_steps, image_steps_per_second, devices: what drawing them took.
        date, command: of the run that found this.
    """

    stem: str
    label: str
    sampler: dict[str, Any]
    labels: tuple[int, ...] | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    evaluations: int
    count: int
    figures: Figures
    by_class: ByClass | None = None
    distance_1000: float | None
    compared: float | None = None
    copying: Copying
    inception: InceptionFigures | None
    seconds: float
    image_steps: int
    image_steps_per_second: float
    devices: list[str]
    date: str
    command: str

    @property
    def line(self) -> str:
        """What it has in common with entries that differ in nothing but in what they spend."""
        name = str(self.sampler["name"])
        if self.guidance is not None:
            name += f" guidance={self.guidance:g}"
            return f"{name} at {self.guidance_interval}" if self.guidance_interval else name
        return name if self.labels is None else f"{name} by class"


class Record(BaseModel):
    """All that is known of one model's samples.

    Args:
        environment: of the last run.
        subject: what the figures are about.
        judge: by what.
        floors: of real training images, for each count that is needed.
        compared: how many samples the entries' `compared` distances are of.
        entries: one for each setting.
    """

    model_config = ConfigDict(extra="forbid")

    environment: dict[str, Any]
    subject: Subject
    judge: Judge
    floors: list[Floor] = []
    compared: int = 0
    entries: list[Entry] = []

    @classmethod
    def read(cls, directory: Path) -> "Record | None":
        """The record in a directory; None if there is none.

        Raises:
            ValueError: the file is no such record.
        """
        path = directory / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            said = in_one_line(error, cls, "the file")
            raise ValueError(f"{path} is no record of an evaluation ({said}): move it away") from error

    def write(self, directory: Path) -> None:
        """Writes it into a directory, atomically."""
        files.write_json(directory / FILE, self.model_dump(mode="json"))

    def put(self, entry: Entry) -> None:
        """Adds an entry, in place of an earlier one of the same setting, whose FID of as many samples is kept."""
        others = [other for other in self.entries if other.stem != entry.stem]
        for other in self.entries:
            if other.stem == entry.stem and other.count == entry.count and entry.inception is None:
                entry = entry.model_copy(update={"inception": other.inception})
        self.entries = sorted([*others, entry], key=lambda e: (e.sampler["name"], e.evaluations, e.label))

    def floor(self, count: int) -> Floor | None:
        """The figures of `count` real training images, if they are known."""
        return next((floor for floor in self.floors if floor.count == count), None)

    def quality(self, entries: list[Entry], count: int) -> dict[str, Any]:
        """What a model card says of some entries of `count` samples."""
        floor = self.floor(count)
        return {
            "what": WHAT,
            "command": self.environment["command"],
            "date": self.environment["date"],
            "count": count,
            "execution": self.subject.execution,
            "seed": self.subject.seed,
            "classifier_test_accuracy": self.judge.test_accuracy,
            "real": {
                "test images": {"recognised": self.judge.test_recognised, "classes": self.judge.test_classes},
                "as many training images": floor and floor.model_dump(mode="json")["figures"],
            },
            "samplers": [
                {
                    **entry.model_dump(mode="json", include=SHOWN, exclude_none=True),
                    **entry.model_dump(mode="json")["figures"],
                }
                for entry in entries
            ],
        }
