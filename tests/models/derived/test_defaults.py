from pathlib import Path

import pytest

from models.card import ModelCard
from models.derived.defaults import publish_with
from models.labels import LabelRefused
from models.plan import plan
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.heun import Heun
from models.samplers.repaint import Repaint
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import SamplerSettings, bare
from models.store import ZOO, BrokenModel, ModelStore
from tests.conftest import publish_tiny

HEUN = Heun(name="heun", levels=5)
LANGEVIN = AnnealedLangevin(levels=6, steps_per_level=2)
COMMAND = "scoreserve republish tiny"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path)


@pytest.fixture
def tiny(store: ModelStore) -> ModelCard:
    """A model that was measured, and of which it is known how it was made."""
    card = publish_tiny(store)
    path = store.path("tiny") / "card.json"
    told = card.model_copy(update={"provenance": {"command": "scoreserve train tiny", "steps": 7}})
    path.write_text(told.model_dump_json())
    return store.add_metrics(told, {"quality": "of the earlier default"})


def test_the_same_weights_are_the_next_version_with_another_default(store: ModelStore, tiny: ModelCard) -> None:
    card, path = publish_with(store, tiny, HEUN, None, COMMAND)
    assert (card.name, card.version, path) == ("tiny", 2, store.path("tiny", 2))
    assert store.card("tiny") == card
    assert store.weights(card) == store.weights(tiny)
    assert card.sampler == HEUN
    assert card.metrics == {}, "what was measured is of the earlier default"
    kept = set(ModelCard.model_fields) - {"version", "created_at", "sampler", "samplers", "provenance", "metrics"}
    assert {name: getattr(card, name) for name in kept} == {name: getattr(tiny, name) for name in kept}


def test_the_card_says_which_version_the_weights_are_of_and_so_on(store: ModelStore, tiny: ModelCard) -> None:
    once, _ = publish_with(store, tiny, HEUN, None, COMMAND)
    what = "the same weights with another default sampler"
    first = {"name": "tiny", "version": 1, "what": what, "command": COMMAND}
    assert once.provenance == {"command": "scoreserve train tiny", "steps": 7, "weights_of": first}
    twice, _ = publish_with(store, once, LANGEVIN, None, "again")
    assert twice.provenance["weights_of"] == {**first, "version": 2, "command": "again", "weights_of": first}


def test_a_request_that_names_a_sampler_gets_what_it_got(store: ModelStore, tiny: ModelCard) -> None:
    """That of the earlier default too, which stays among the model's own settings, but for what says nothing."""
    card, _ = publish_with(store, tiny, HEUN, None, COMMAND)
    assert card.samplers == (LANGEVIN,)
    again, _ = publish_with(store, card, bare("euler"), None, COMMAND)
    assert again.samplers == (HEUN, LANGEVIN)
    last, _ = publish_with(store, again, bare("annealed_langevin"), None, COMMAND)
    assert (last.sampler, last.samplers) == (LANGEVIN, (HEUN,)), "the model's own settings, since none are given"


@pytest.mark.parametrize(
    "sampler", [AnnealedLangevin(levels=9), bare("heun"), Ancestral(name="ancestral", sigma_max=4.0)]
)
def test_the_default_is_what_a_request_that_names_it_would_have_got(
    store: ModelStore, tiny: ModelCard, sampler: SamplerSettings
) -> None:
    card, _ = publish_with(store, tiny, sampler, None, COMMAND)
    assert plan(None, card)[0] == plan(sampler, tiny)[0]


def test_guidance_by_default(store: ModelStore) -> None:
    labelled = publish_tiny(store, "labelled", classes=("shirt", "shoe"))
    card, _ = publish_with(store, labelled, None, 1.5, COMMAND)
    assert (card.guidance, card.sampler) == (1.5, labelled.sampler)
    assert card.provenance["weights_of"]["what"] == "the same weights with another default guidance"
    none, _ = publish_with(store, card, HEUN, 1, COMMAND)
    assert none.guidance is None
    assert none.provenance["weights_of"]["what"] == "the same weights with another default sampler and guidance"


def test_scores_on_a_grid_are_of_the_weights_and_a_preview_is_of_the_default(store: ModelStore) -> None:
    tiny = publish_tiny(store)
    (store.path("tiny") / "scores.json").write_bytes(b"{}")
    (store.path("tiny") / "preview.png").write_bytes(b"a picture")
    publish_with(store, tiny, HEUN, None, COMMAND)
    assert store.scores("tiny", 2) == b"{}"
    assert store.preview("tiny", 2) is None


def test_a_model_that_ships_gets_its_next_version_in_a_store_of_ones_own(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, ZOO)
    shipped = store.card("mnist")
    card, path = publish_with(store, shipped, HEUN, None, COMMAND)
    assert (card.version, path) == (shipped.version + 1, tmp_path / "mnist" / str(shipped.version + 1))


@pytest.mark.parametrize(
    ("sampler", "guidance", "kind", "said"),
    [
        (Repaint(name="repaint"), None, SamplerRefused, "name: repaint .* nothing is known; allowed: .*heun"),
        (bare("multistep_consistency"), None, SamplerRefused, "samples consistency models; tiny is none"),
        (Heun(name="heun", sigma_max=99.0), None, SamplerRefused, "sigma_max: 99 is outside .*allowed: 0.01 to 10"),
        (None, 2, LabelRefused, "guidance: tiny knows no classes; allowed: 1, or nothing"),
        (LANGEVIN, None, ValueError, "^the defaults of tiny version 1 are these already: give others"),
        (None, 1, ValueError, "are these already"),
    ],
)
def test_what_the_model_cannot_follow_or_has_already_is_refused_and_nothing_is_written(
    store: ModelStore,
    tiny: ModelCard,
    sampler: SamplerSettings | None,
    guidance: float | None,
    kind: type[Exception],
    said: str,
) -> None:
    with pytest.raises(kind, match=said):
        publish_with(store, tiny, sampler, guidance, COMMAND)
    assert store.versions("tiny") == [1]


def test_damaged_weights_are_not_published_again(store: ModelStore, tiny: ModelCard) -> None:
    (store.path("tiny") / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(BrokenModel, match="copy it again"):
        publish_with(store, tiny, HEUN, None, COMMAND)
    assert store.versions("tiny") == [1]
