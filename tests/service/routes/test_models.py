"""/models: the cards of what can be sampled."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.card import ModelCard
from service.answering.score_field import EXAMPLE


@pytest.fixture
def both(new_client, settings, tmp_path: Path, publish_other: Callable[[Path], ModelCard], tiny_card: ModelCard) -> Any:
    """A client of a store with two models, one of them damaged."""
    publish_other(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "card.json").write_text("{}")
    return new_client(settings.model_copy(update={"models_dir": tmp_path}))


def test_cards_are_listed_and_damaged_ones_left_out(both) -> None:
    cards = both.get("/models").json()
    assert "other" in [card["name"] for card in cards]
    assert "broken" not in [card["name"] for card in cards]


def test_a_card_says_what_can_be_asked_for(client, tiny_card: ModelCard) -> None:
    response = client.get("/models/tiny")
    card = response.json()
    del card["abilities"]
    assert ModelCard.model_validate(card) == tiny_card
    assert response.json()["image"] == {"channels": 1, "height": 8, "width": 8}
    assert client.get("/models/tiny", params={"version": 1}).json() == response.json()


def test_what_a_model_can_do_is_told_and_what_not_with_the_reason(
    client, new_client, settings, labelled_dir: Path
) -> None:
    abilities = client.get("/models/tiny").json()["abilities"]
    samplers = {sampler["name"]: sampler["why_not"] for sampler in abilities["samplers"]}
    assert list(samplers) == [sampler["name"] for sampler in client.get("/samplers").json()]
    assert {name for name, why_not in samplers.items() if why_not} == {"multistep_consistency"}
    assert "tiny is none" in samplers["multistep_consistency"]
    assert abilities["guidance"]["why_not"] == "tiny knows no classes"
    others = new_client(settings.model_copy(update={"models_dir": labelled_dir, "default_model": "labelled"}))
    labelled, needy = (others.get(f"/models/{name}").json() for name in ("labelled", "needy"))
    assert (labelled["classes"], labelled["abilities"]["guidance"]["why_not"]) == (["shirt", "shoe", "7"], None)
    assert "never trained without a label" in needy["abilities"]["guidance"]["why_not"]


def test_unknown_models_are_not_found(client, both, problem: Callable[..., Any], refusal: Callable[..., str]) -> None:
    assert "tiny" in problem(client.get("/models/gone"), 404, "not-found")["detail"]
    for path in ("", "/preview.png", "/scores"):
        told = problem(client.get(f"/models/tiny{path}", params={"version": 2}), 404, "not-found")["detail"]
        assert told == "tiny has no version 2; one of: 1"
    problem(both.get("/models/broken"), 404, "not-found")
    refusal(client.get("/models/Tiny!"), "name")
    refusal(client.get("/models/tiny", params={"version": 0}), "version")


def test_a_model_published_meanwhile_is_served(
    new_client, settings, tmp_path: Path, publish_other: Callable[[Path], ModelCard]
) -> None:
    client = new_client(settings.model_copy(update={"models_dir": tmp_path}))
    assert client.get("/models/other").status_code == 404
    publish_other(tmp_path)
    assert client.submit(model="other")["model"] == "other"


def test_a_model_whose_network_is_not_here_is_listed_and_said_to_be_why_it_cannot_be_sampled(
    new_client, settings, tmp_path: Path, tiny_card: ModelCard, refusal: Callable[..., str]
) -> None:
    card = tiny_card.model_copy(update={"network": tiny_card.network.model_copy(update={"kind": "theirs"})})
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    (tmp_path / "tiny" / "1" / "card.json").write_text(card.model_dump_json())
    client = new_client(settings.model_copy(update={"models_dir": tmp_path}))
    assert "tiny" in [card["name"] for card in client.get("/models").json()]
    said = refusal(client.post("/samples", json={"model": "tiny"}), "/model")
    assert "network 'theirs' is unknown here; there is " in said
    assert "entry point of the group scoreserve.networks" in said


def test_the_scores_of_a_model_of_the_plane_are_those_beside_its_weights(
    new_client, settings, models_dir: Path, tmp_path: Path, problem: Callable[..., Any]
) -> None:
    shutil.copytree(models_dir, tmp_path / "models")
    client = new_client(settings.model_copy(update={"models_dir": tmp_path / "models"}))
    assert "only those of points in the plane" in problem(client.get("/models/tiny/scores"), 404, "not-found")["detail"]
    content = json.dumps(EXAMPLE).encode()
    (tmp_path / "models" / "tiny" / "1" / "scores.json").write_bytes(content)
    response = client.get("/models/tiny/scores")
    assert response.content == content
    assert response.headers["content-type"] == "application/json"
    again = client.get("/models/tiny/scores", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    problem(client.get("/models/tiny/scores", params={"version": 2}), 404, "not-found")
