"""ModelStore: a directory of checkpoints, `<name>/<version>/{card.json, model.safetensors}`. Torch-free."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models import files
from models.card import ModelCard
from models.sentences import in_one_line

log = logging.getLogger(__name__)

CARD = "card.json"
WEIGHTS = "model.safetensors"
PREVIEW = "preview.png"
SCORES = "scores.json"
ZOO = Path(__file__).parent / "zoo"


class ModelNotFound(LookupError):
    """No such model, or no such version of it, in any of the store's directories."""


class BrokenModel(ValueError):
    """A version is there but cannot be used: its card does not parse or its weights are not those of the card."""


class ModelStore:
    """Looks models up in one or more directories; the first is the one that `publish` writes to.

    A version is complete or absent: it is written aside, synced, and renamed into place, and never replaced.
    """

    def __init__(self, *directories: Path) -> None:
        if not directories:
            raise ValueError("a ModelStore needs at least one directory")
        self.directories = [Path(d) for d in directories]
        self._told: set[str] = set()

    def names(self) -> list[str]:
        """All model names, sorted."""
        return sorted({name for name, _, _ in self._all()})

    def versions(self, name: str) -> list[int]:
        """All versions of a model, ascending; empty if there is no such model."""
        return sorted({version for _, version, _ in self._all(name)})

    def stamp(self, name: str, version: int | None = None) -> tuple[int, ...]:
        """Is another one once a version of the model has come or gone; cheap to ask.

        With a version also once a file of that was written anew.
        """
        places = [Path(name)]
        if version is not None:
            places += [Path(name, str(version), file) for file in ("", CARD, WEIGHTS)]
        stamps = []
        for directory in self.directories:
            for place in places:
                try:
                    stamps.append((directory / place).stat().st_mtime_ns)
                except OSError:
                    stamps.append(0)
        return tuple(stamps)

    def path(self, name: str, version: int | None = None) -> Path:
        """The directory of a version (the newest by default).

        Raises:
            ModelNotFound: there is none.
        """
        found = [(v, p) for _, v, p in self._all(name) if version in (None, v)]
        if not found:
            wanted = name if version is None else f"{name} version {version}"
            versions = ", ".join(map(str, self.versions(name)))
            there = f"version {versions}" if versions else ", ".join(self.names()) or "none"
            raise ModelNotFound(f"no model {wanted}; there is: {there}")
        return max(found, key=lambda item: item[0])[1]

    def card(self, name: str, version: int | None = None) -> ModelCard:
        """The card of a version (the newest by default).

        Raises:
            ModelNotFound: there is none.
            BrokenModel: its card does not parse, or is of another model.
        """
        directory = self.path(name, version)
        path = directory / CARD
        try:
            card = ModelCard.model_validate_json(path.read_bytes())
        except OSError as error:
            raise BrokenModel(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            said = in_one_line(error, ModelCard, "the file")
            raise BrokenModel(f"{path} is not a model card: {said}") from error
        if (card.name, card.version) != (name, int(directory.name)):
            raise BrokenModel(f"{path} is the card of {card.name} version {card.version}: put it in its own directory")
        return card

    def cards(self) -> list[ModelCard]:
        """The newest usable card of every model, by name; broken ones are left out, and logged once."""
        cards = []
        for name in self.names():
            try:
                cards.append(self.card(name))
            except ModelNotFound:
                continue
            except BrokenModel as error:
                self._tell(f"model {name} is left out: {error}")
        return cards

    def weights(self, card: ModelCard) -> bytes:
        """The weights of a card's version, checked against the card.

        Raises:
            ModelNotFound: the version is gone.
            BrokenModel: the bytes are not those the card names.
        """
        path = self.path(card.name, card.version) / WEIGHTS
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BrokenModel(f"{path} cannot be read: {error}") from error
        if (found := sha256(data)) != card.weights_sha256:
            raise BrokenModel(f"{path} has sha256 {found}, its card says {card.weights_sha256}: copy it again")
        return data

    def preview(self, name: str, version: int | None = None) -> bytes | None:
        """A PNG file of what a version (the newest by default) makes; None if there is none beside its weights.

        Raises:
            ModelNotFound: there is no such version.
        """
        try:
            return (self.path(name, version) / PREVIEW).read_bytes()
        except FileNotFoundError:
            return None

    def scores(self, name: str, version: int | None = None) -> bytes | None:
        """The scores on a grid of a version (the newest by default); None if there are none beside its weights.

        Raises:
            ModelNotFound: there is no such version.
        """
        try:
            return (self.path(name, version) / SCORES).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, card: ModelCard) -> int:
        """Bytes of the weights of a card's version.

        Raises:
            ModelNotFound: the version is gone.
            BrokenModel: the weights are.
        """
        path = self.path(card.name, card.version) / WEIGHTS
        try:
            return path.stat().st_size
        except OSError as error:
            raise BrokenModel(f"{path} cannot be read: {error}") from error

    def next_version(self, name: str) -> int:
        """The version that the next `publish` of this name may take.

        Past those that ship as well, beside which it is served: else theirs would stay the newest, or be hidden by it.
        """
        return max(ModelStore(*self.directories, ZOO).versions(name), default=0) + 1

    def publish(self, card: ModelCard, weights: bytes, scores: bytes | None = None) -> Path:
        """Writes a version atomically and returns its directory.

        Args:
            card: of the version.
            weights: a safetensors file.
            scores: its scores on a grid, if it is a model of the plane.

        Raises:
            FileExistsError: the version is there already; a version is never replaced.
            ValueError: the card's sha256 is not that of the weights.
        """
        if sha256(weights) != card.weights_sha256:
            raise ValueError("weights_sha256 of the card is not the sha256 of the weights")
        parent = self.directories[0] / card.name
        parent.mkdir(parents=True, exist_ok=True)
        target = parent / str(card.version)
        aside = Path(tempfile.mkdtemp(prefix=f".{card.version}-", dir=parent))
        try:
            aside.chmod(0o755)
            _write_synced(aside / WEIGHTS, weights)
            if scores is not None:
                _write_synced(aside / SCORES, scores)
            _write_synced(aside / CARD, card.model_dump_json(indent=2).encode() + b"\n")
            _sync(aside)
            if target.exists():
                raise FileExistsError(f"{target} is there already: publish version {self.next_version(card.name)}")
            try:
                aside.rename(target)  # refuses a directory that is not empty: a race cannot replace a version either
            except OSError as error:
                if target.exists():
                    raise FileExistsError(f"{target} was published by another just now: publish again") from error
                raise
            _sync(parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return target

    def add_metrics(self, card: ModelCard, metrics: dict[str, Any]) -> ModelCard:
        """Adds to what the card of a version says was measured on it, atomically; returns the card as it is now.

        Nothing else of a version ever changes.

        Raises:
            ModelNotFound: the version is gone.
            BrokenModel: its card does not parse.
        """
        known = self.card(card.name, card.version)
        measured = known.model_copy(update={"metrics": known.metrics | metrics})
        path = self.path(card.name, card.version) / CARD
        files.write(path, measured.model_dump_json(indent=2).encode() + b"\n")
        return measured

    def _tell(self, warning: str) -> None:
        """Logs what is wrong with a model once, not whenever it is looked at."""
        if warning not in self._told:
            self._told.add(warning)
            log.warning("%s", warning)

    def _all(self, name: str | None = None) -> Iterator[tuple[str, int, Path]]:
        """Name, version and directory of all complete versions, of one model or of all.

        One that is being written has no number for a name. Where one model is asked for, others cost nothing.
        """
        if name is not None and (Path(name).name != name or "\0" in name):  # no name of a directory below ours
            return
        for directory in self.directories:
            paths = directory.glob(f"*/*/{CARD}") if name is None else (directory / name).glob(f"*/{CARD}")
            for path in paths:
                if path.parent.name.isdecimal():
                    yield path.parent.parent.name, int(path.parent.name), path.parent


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
