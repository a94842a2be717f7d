"""`scoreserve models` and `samplers`: what they ask and print."""

import json
from collections.abc import Callable
from typing import Any

from tests.cli.commands.test_jobs import CARD, HEUN
from tests.cli.conftest import Service, as_json

Command = Callable[..., Any]
QUALITY = {"distance": 0.0992, "recognised": 0.973, "precision": 0.8928, "recall": 0.8648}
WHOLE = CARD | {
    "classes": ["shirt", "shoe"],
    "sigma_min": 0.01,
    "sigma_max": 10.0,
    "sampler": {"name": "heun", "levels": 10, "rho": None, "churn": 0.5},
    "inpainting": {"name": "repaint", "resamples": 10},
    "metrics": {
        "quality": {
            "count": 5000,
            "samplers": [
                {"sampler": {"name": "heun", "levels": 5, "rho": 7.0, "churn": 0.5}, "evaluations": 9, **QUALITY},
                {"sampler": {"name": "heun", "levels": 10, "rho": 7.0, "churn": 0.5}, "evaluations": 19, **QUALITY},
            ],
        },
    },
    "provenance": {
        "command": "scoreserve train tiny",
        "images": 60000,
        "parameters": 2665796,
        "wall_seconds": 3818,
        "images_per_second": 313.8,
        "from": {"provenance": {"wall_seconds": 3787, "from": {"provenance": {"wall_seconds": 5213, "from": None}}}},
        "weights": "exponential moving average",
        "loss_curve": list(range(1000)),
    },
    "weights_sha256": "ab" * 32,
}


def test_models(command: Command, service: Service) -> None:
    service.answers |= {"GET /models": as_json([CARD]), "GET /models/tiny": as_json(CARD)}
    assert command("models").stdout.splitlines()[1].split() == ["tiny", "3", "8x9x1", "noise"]
    assert json.loads(command("models", "--json").stdout) == [CARD]
    assert json.loads(command("models", "tiny", "--version", "3", "--json").stdout) == CARD
    assert service.asked[-1][0] == "GET /models/tiny?version=3"


def test_samplers(command: Command, service: Service, failed: Command) -> None:
    service.answers["GET /samplers"] = as_json([HEUN])
    assert command("samplers").stdout.splitlines()[1].split() == ["heun", "levels", "Second", "order."]
    assert json.loads(command("samplers", "--json").stdout) == [HEUN]
    assert json.loads(command("samplers", "heun").stdout) == HEUN
    failed(command("samplers", "huen"), "there is no sampler huen; there is: heun", code=2)


def test_a_model_is_told_of_on_a_few_lines(command: Command, service: Service) -> None:
    service.answers["GET /models/tiny"] = as_json(WHOLE)
    result = command("models", "tiny")
    assert result.exit_code == 0, result.output
    assert dict(line.split(maxsplit=1) for line in result.stdout.splitlines()) == {
        "tiny": "version 3: noise",
        "image": "8x9x1, noise levels 10 down to 0.01",
        "classes": "2: shirt, shoe",
        "sampler": "heun (levels 10, churn 0.5), 19 evaluations an image",
        "completes": "by repaint (resamples 10)",
        "figures": "Frechet distance 0.10, 97.3% recognised, precision 0.89, recall 0.86; of 5,000 images",
        "trained": "on 60,000 images, 2,665,796 parameters, 1.1 hours after 2.5 of earlier runs, 314 images/s: "
        "scoreserve train tiny",
        "weights": f"exponential moving average, sha256 {'ab' * 32}",
        "--json": "prints the whole card",
    }


def test_a_model_that_is_not_served_any_more_is_told_of_as_such(command: Command, service: Service) -> None:
    card = WHOLE | {"provenance": {"flows": {"teacher": "tiny version 2"}}, "metrics": {}, "inpainting": None}
    service.answers["GET /models/fast"] = as_json(card)
    told = command("models", "fast").stdout
    assert "distilled  from tiny version 2, which is not served here\n" in told
    assert service.asked[-1][0] == "GET /models/tiny?version=2"
    service.answers["GET /models/tiny"] = as_json(CARD)
    assert "distilled  from tiny version 2\n" in command("models", "fast").stdout
    assert "completes" not in told
    service.answers["GET /models/fast"] = as_json(
        card | {"inpainting": None, "sampler": {"name": "multistep_consistency"}}
    )
    assert "completes  badly" in command("models", "fast").stdout
    again = {"weights_of": {"name": "tiny", "version": 2, "what": "the same weights with another default sampler"}}
    service.answers["GET /models/again"] = as_json(card | {"provenance": again})
    assert "weights  those of tiny version 2, sha256 abab" in command("models", "again").stdout


def test_a_model_may_be_called_as_what_is_told_of_it(command: Command, service: Service) -> None:
    service.answers["GET /models/image"] = as_json(WHOLE | {"name": "image"})
    told = [line.split()[0] for line in command("models", "image").stdout.splitlines()]
    assert told[:3] == ["image", "image", "classes"]
