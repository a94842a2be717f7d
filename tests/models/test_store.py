import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models import store as store_module
from models.card import ModelCard
from models.store import ZOO, BrokenModel, ModelNotFound, ModelStore, sha256

WEIGHTS = b"weights"


def card_of(tiny_card: ModelCard, version: int, weights: bytes = WEIGHTS, name: str = "m") -> ModelCard:
    return tiny_card.model_copy(update={"name": name, "version": version, "weights_sha256": sha256(weights)})


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_what_is_published_is_read_back(store: ModelStore, tiny_card: ModelCard) -> None:
    card = card_of(tiny_card, 1)
    path = store.publish(card, WEIGHTS)
    assert path == store.directories[0] / "m" / "1"
    assert sorted(p.name for p in path.iterdir()) == ["card.json", "model.safetensors"]
    assert store.card("m") == store.card("m", 1) == card
    assert store.weights(card) == WEIGHTS
    assert store.names() == ["m"]
    assert store.cards() == [card]
    assert path.stat().st_mode & 0o777 == 0o755


def test_the_newest_version_is_the_largest_number(store: ModelStore, tiny_card: ModelCard) -> None:
    for version in (9, 10, 2):
        store.publish(card_of(tiny_card, version), WEIGHTS)
    assert store.versions("m") == [2, 9, 10]
    assert store.card("m").version == 10
    assert store.card("m", 9).version == 9
    assert store.next_version("m") == 11
    assert store.next_version("other") == 1
    assert [card.version for card in store.cards()] == [10]


def test_one_model_is_found_without_a_look_at_others(
    store: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All cards would else cost the square of the models."""
    for number in range(5):
        store.publish(card_of(tiny_card, 1, name=f"m{number}"), WEIGHTS)
    looks: list[Path] = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: (looks.append(self / pattern), glob(self, pattern))[1])
    assert len(store.cards()) == 5
    directory = store.directories[0]
    assert looks == [directory / "*/*/card.json", *(directory / f"m{number}/*/card.json" for number in range(5))]


@pytest.mark.parametrize("name", ["..", ".", "", "m/1", "../models/m", "/etc", "m\0", "*"])
def test_only_names_of_models_are_looked_up(store: ModelStore, tiny_card: ModelCard, name: str) -> None:
    store.publish(card_of(tiny_card, 1), WEIGHTS)
    assert store.versions(name) == []
    with pytest.raises(ModelNotFound, match="there is: m"):
        store.card(name)


def test_a_version_is_never_replaced(store: ModelStore, tiny_card: ModelCard) -> None:
    store.publish(card_of(tiny_card, 1), WEIGHTS)
    with pytest.raises(FileExistsError, match="publish version 2"):
        store.publish(card_of(tiny_card, 1, b"others"), b"others")
    assert store.weights(store.card("m")) == WEIGHTS
    assert [p.name for p in (store.directories[0] / "m").iterdir()] == ["1"]


def test_a_version_published_by_another_at_the_same_moment_is_not_replaced(
    store: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(card_of(tiny_card, 1), WEIGHTS)
    with monkeypatch.context() as patch:
        answers = iter([False, True])  # it appears between the look and the renaming
        patch.setattr(Path, "exists", lambda self: next(answers))
        with pytest.raises(FileExistsError, match="published by another"):
            store.publish(card_of(tiny_card, 1, b"others"), b"others")
    assert [p.name for p in (store.directories[0] / "m").iterdir()] == ["1"]
    assert store.weights(store.card("m")) == WEIGHTS


@pytest.mark.parametrize("failing", ["_write_synced", "_sync", "rename"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk full", "interrupt"])
def test_a_failure_half_way_leaves_nothing(
    store: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    target, original = (Path, None) if failing == "rename" else (store_module, getattr(store_module, failing))
    if failing == "_write_synced":  # the weights get through, the card does not
        monkeypatch.setattr(
            target, failing, lambda path, data: fail() if path.name == "card.json" else original(path, data)
        )
    else:
        monkeypatch.setattr(target, failing, fail)
    with pytest.raises(type(error)):
        store.publish(card_of(tiny_card, 1), WEIGHTS)
    monkeypatch.undo()
    assert store.versions("m") == []
    assert list((store.directories[0] / "m").iterdir()) == []
    store.publish(card_of(tiny_card, 1), WEIGHTS)


def test_what_a_killed_publisher_left_behind_is_not_a_model(store: ModelStore, tiny_card: ModelCard) -> None:
    aside = store.publish(card_of(tiny_card, 1), WEIGHTS)
    aside.rename(aside.parent / ".1-abcdef")
    assert store.versions("m") == []
    assert store.cards() == []
    assert store.names() == []


def test_weights_that_are_not_those_of_the_card_are_refused(store: ModelStore, tiny_card: ModelCard) -> None:
    card = card_of(tiny_card, 1)
    with pytest.raises(ValueError, match="sha256"):
        store.publish(card, b"others")
    assert store.names() == []
    weights = store.publish(card, WEIGHTS) / "model.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + b"z")
    with pytest.raises(BrokenModel, match="copy it again"):
        store.weights(card)
    weights.unlink()
    with pytest.raises(BrokenModel, match="cannot be read"):
        store.weights(card)


def test_metrics_are_added_to_a_card_and_nothing_else_of_it_changes(store: ModelStore, tiny_card: ModelCard) -> None:
    path = store.publish(card_of(tiny_card, 1), WEIGHTS)
    card = store.card("m")
    store.add_metrics(card, {"quality": [1, 2], "speed": 3})
    measured = store.add_metrics(card, {"speed": 4})
    assert measured == store.card("m")
    assert measured.metrics == {"quality": [1, 2], "speed": 4}
    assert measured.model_copy(update={"metrics": card.metrics}) == card
    assert sorted(p.name for p in path.iterdir()) == ["card.json", "model.safetensors"]
    with pytest.raises(ModelNotFound):
        store.add_metrics(card_of(tiny_card, 2), {})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"name": "m"}', b"[]"])
def test_a_broken_card_is_refused_and_left_out_of_the_list(
    store: ModelStore, tiny_card: ModelCard, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.publish(card_of(tiny_card, 1, name="good"), WEIGHTS)
    path = store.publish(card_of(tiny_card, 1, name="bad"), WEIGHTS)
    (path / "card.json").write_bytes(content)
    with pytest.raises(BrokenModel, match=r"card\.json is not a model card"):
        store.card("bad")
    for _ in range(2):
        assert [card.name for card in store.cards()] == ["good"]
    (told,) = caplog.messages
    assert told.startswith("model bad is left out: ")


def test_a_card_in_the_directory_of_another_model_is_refused(store: ModelStore, tiny_card: ModelCard) -> None:
    path = store.publish(card_of(tiny_card, 1), WEIGHTS)
    content = json.loads((path / "card.json").read_text())
    (path / "card.json").write_text(json.dumps(content | {"name": "other"}))
    with pytest.raises(BrokenModel):
        store.card("m")


def test_the_next_version_of_a_name_that_ships_is_newer_than_what_ships(
    store: ModelStore, tiny_card: ModelCard
) -> None:
    """Else whoever trains it anew, and serves it beside what ships, is served what ships."""
    shipped = ModelStore(ZOO).versions("mnist")[-1]
    assert store.next_version("mnist") == shipped + 1
    store.publish(card_of(tiny_card, shipped + 1, name="mnist"), WEIGHTS)
    assert store.next_version("mnist") == shipped + 2
    assert ModelStore(*store.directories, ZOO).card("mnist").version == shipped + 1


def test_several_directories_are_one_store(tmp_path: Path, tiny_card: ModelCard) -> None:
    own, zoo = ModelStore(tmp_path / "own"), ModelStore(tmp_path / "zoo")
    zoo.publish(card_of(tiny_card, 1), WEIGHTS)
    zoo.publish(card_of(tiny_card, 1, name="z"), WEIGHTS)
    both = ModelStore(tmp_path / "own", tmp_path / "zoo")
    assert both.names() == ["m", "z"]
    assert both.next_version("m") == 2
    both.publish(card_of(tiny_card, 2), WEIGHTS)
    assert own.versions("m") == [2]
    assert both.versions("m") == [1, 2]
    assert both.card("m").version == 2

    own.publish(card_of(tiny_card, 1, b"mine"), b"mine")
    assert both.weights(both.card("m", 1)) == b"mine"


def test_a_name_or_version_that_is_not_there_says_what_is(store: ModelStore, tiny_card: ModelCard) -> None:
    with pytest.raises(ModelNotFound, match="there is: none"):
        store.card("m")
    store.publish(card_of(tiny_card, 1), WEIGHTS)
    with pytest.raises(ModelNotFound, match=r"no model m version 7; there is: version 1$"):
        store.card("m", 7)


@pytest.mark.parametrize("name", ["*", "../models/m", "m/1", "**", "", "/m", "[m]"])
def test_a_name_cannot_reach_outside_its_place(store: ModelStore, tiny_card: ModelCard, name: str) -> None:
    store.publish(card_of(tiny_card, 1), WEIGHTS)
    assert store.versions(name) == []
    with pytest.raises(ModelNotFound):
        store.card(name)


def test_a_store_needs_a_directory() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ModelStore()


@pytest.mark.parametrize("written", ["card.json", "model.safetensors", "another"])
def test_the_stamp_of_a_version_changes_with_its_files(
    tmp_path: Path, publish_other: Callable[..., ModelCard], written: str
) -> None:
    publish_other(tmp_path)
    store = ModelStore(tmp_path)
    before = store.stamp("other", 1)
    assert store.stamp("other", 1) == before
    place = tmp_path / "other" / "1" / written
    place.touch()
    os.utime(place, (1, 1))
    assert store.stamp("other", 1) != before
