"""The OpenAPI document: complete, true, and what it was.

What it was is in tests/data/golden/openapi.json. What is added on purpose since then, or had to change, is listed in
ALLOWED. Where much has changed on purpose, record anew, empty the list, and say why in the commit:

    pytest tests/service/test_openapi.py --record-golden
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from pydantic import BaseModel

from models.card import ModelCard
from models.store import ModelStore
from service.answering.frames_view import FramesView
from service.answering.job_view import JobsView, JobView
from service.answering.models import ModelView
from service.answering.problems import KINDS, MEDIA_TYPE, ProblemDetails
from service.answering.score_field import ScoreField
from service.asking.schemas import ColorizeBody, InpaintBody, SampleBody, UpscaleBody
from service.routes.house import Sampler, WorkersView
from service.routes.operator import ClientJob, ClientJobs, KeyView, ModelState, SuspendedKey
from tests.conftest import DATA

GOLDEN = DATA / "golden" / "openapi.json"
# What is other since then on purpose, as `differences` has it: patterns of fnmatch.
ALLOWED: tuple[str, ...] = (
    # Generated clients name their functions after operations: createSamples, getJob.
    "paths/*/operationId: changed: *",
    "paths/*/summary: changed: *",
    "paths//[ms]*s/get/responses/200/content/application/json/schema/title: changed: *",
    "paths/*/links/*: added",
    "paths/*/links/*: gone",
    # A service answers by its own names, and to its own pages; a key may reach less far than others.
    "paths//*/responses/421: added",
    "paths//*/responses/403: added",
    # What a client may have kept has a limit.
    "paths/*/responses/429/content/application/problem+json/examples/storage-exceeded: added",
    "paths//*/responses/429/description: changed: *Too many images of yours are kept: *",
    # What keeps the images may be away, while the queue is not.
    "paths/*/responses/503/content/application/problem+json/examples/images-unavailable: added",
    "paths//*/responses/503/description: changed: *The images cannot be reached: *",
    # A client has so many pictures drawn, and archives sent, at once.
    "paths//jobs/{job_id}/*.*/get/responses/429/content/application/problem+json/examples/quota-exceeded: added",
    "paths//jobs/{job_id}/*.*/get/responses/503/content/application/problem+json/examples/busy: added",
    "paths//jobs/{job_id}/*.*/get/responses/*/description: changed: *",
    # A client has so many streams.
    "paths//jobs/{job_id}/events/get/responses/429/content/application/problem+json/examples/quota-exceeded: added",
    "paths//jobs/{job_id}/events/get/responses/429/description: changed: *",
    # A queue that is suspended is not ready.
    "paths//readyz/get/description: changed: *",
    # Of ancestral sampling's noise there may be less.
    "components/schemas/Ancestral/properties/eta: added",
    # Noise levels may be listed, which is a parameter that is no number.
    *(
        f"components/schemas/{sampler}/properties/sigmas: added"
        for sampler in ("AdamsBashforth", "Ancestral", "AnnealedLangevin", "ConsistentAnnealed", "Euler", "Heun")
    ),
    "components/schemas/Parameter/properties/type/description: changed: *or array, of numbers.'",
    # Consistency models have a sampler of their own.
    "components/schemas/MultistepConsistency: added",
    "components/schemas/*/sampler*/mapping/multistep_consistency: added",
    "components/schemas/*/sampler*/oneOf/8: added",
    # A card may say how its network is run, and a worker tells.
    "components/schemas/WorkerStatus/properties/arithmetics: added",
    "components/schemas/WorkersView/examples/0/workers/0/arithmetics: added",
    # A parameter of a query that is empty is one that is left out, and so is a sampler's name that is null.
    "paths//*/get/parameters/*/allowEmptyValue: added",
    'components/schemas/*Body/properties/sampler/description: changed: * or with null for one, annealed_langevin."',
    # And what it leaves to others.
    "components/schemas/WorkerStatus/properties/only: added",
    "components/schemas/WorkerStatus/properties/lacks: added",
    "components/schemas/WorkersView/examples/0/workers/0/lacks: added",
    "components/schemas/Lack: added",
    # A model is shown with what it can do besides its card, which may name classes.
    "components/schemas/ModelCard: gone",
    "components/schemas/ModelView: added",
    "components/schemas/Abilities: added",
    "components/schemas/Ability: added",
    "paths//models*/get/description: changed: *",
    "paths//models*/schema/*ref: changed: '#/components/schemas/ModelCard' to '#/components/schemas/ModelView'",
    # Images may be asked for by their classes, and guided.
    "components/schemas/*Body/properties/label: added",
    "components/schemas/*Body/properties/labels: added",
    "components/schemas/*Body/properties/guidance: added",
    "components/schemas/*Body/properties/guidance_interval: added",
    "components/schemas/*Body/properties/frames/description: changed: * or one of each if there are fewer; *",
    "components/schemas/*Body/properties/seed/description: changed: * alone. Drawn at random by default.'",
    "components/schemas/JobView/*/labels: added",
    "components/schemas/JobView/*/guidance: added",
    "components/schemas/JobView/*/guidance_interval: added",
    "components/schemas/JobsView/examples/0/jobs/0/labels: added",
    "components/schemas/JobsView/examples/0/jobs/0/guidance: added",
    "components/schemas/JobsView/examples/0/jobs/0/guidance_interval: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/label: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/labels: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/guidance: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/guidance_interval: added",
    # A card's network may be another package's, and its parametrisation any that has a name.
    "components/schemas/NetworkSpec/properties/kind/enum: gone",
    "components/schemas/NetworkSpec/properties/kind/maxLength: added",
    "components/schemas/NetworkSpec/properties/kind/minLength: added",
    "components/schemas/NetworkSpec/properties/kind/description: added",
    "components/schemas/NetworkSpec/properties/kind/examples: added",
    "components/schemas/NetworkSpec/properties/parametrisation: added",
    "components/schemas/Betas: added",
    "components/schemas/Consistency: added",
    "components/schemas/DiscreteLevels: added",
    "components/schemas/DiscreteVariancePreserving: added",
    "components/schemas/Edm: added",
    "components/schemas/Epsilon: added",
    "components/schemas/Flow: added",
    "components/schemas/OverSigma: added",
    "components/schemas/Score: added",
    "components/schemas/SubVariancePreserving: added",
    "components/schemas/UnitVariance: added",
    "components/schemas/V: added",
    "components/schemas/VarianceExploding: added",
    "components/schemas/VariancePreserving: added",
    "components/schemas/X0: added",
    # Repaint is a sampler, for images of which something is known, which may be what is enlarged or coloured.
    "components/schemas/*/repaint: added",
    "components/schemas/*/oneOf/9: added",
    "components/schemas/Repaint: added",
    "components/schemas/Sampler/*/needs_known: added",
    "components/schemas/JobView/properties/kind/enum/upscale: added",
    "components/schemas/JobView/properties/kind/enum/colorize: added",
    "components/schemas/UpscaleBody: added",
    "components/schemas/ColorizeBody: added",
    "paths//upscale: added",
    "paths//colorize: added",
    # The reverse SDE may be solved to the second order.
    "components/schemas/Dpmpp2mSde: added",
    "components/schemas/*/dpmpp_2m_sde: added",
    "components/schemas/*/oneOf/10: added",
    # Null, and an empty field of a form, are the same as left out.
    "components/schemas/*Body/properties/*: gone",
    "components/schemas/*Body/properties/*/anyOf: added",
    # Bounds are told by JSON schema's words.
    "components/schemas/*Body/properties/*/anyOf/0/minimum: added",
    "components/schemas/*Body/properties/*/anyOf/0/maximum: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/*: gone",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/properties/*/anyOf: added",
    "paths//inpaint/post/requestBody/content/multipart/form-data/schema/description: added",
    # Who hangs up may want the job cancelled.
    "paths//*/post/parameters/0/description: changed: *",
    # A Last-Event-ID that the job does not have is no mistake.
    "paths//jobs/{job_id}/events/get/parameters/2/*",
    # What the frames of a job show, and the scores of a model of the plane.
    "paths//jobs/{job_id}/frames: added",
    "components/schemas/Frame*: added",
    "components/schemas/Start: added",
    "paths//models/{name}/scores: added",
    "components/schemas/ScoreField: added",
    # Previews are two pictures.
    "paths//jobs/{job_id}/events/get/parameters/1/*description: changed: *",
    "paths//jobs/{job_id}/events/get/responses/200/description: changed: *",
    # Metrics may have a port of their own.
    "paths//metrics/get/description: changed: *",
    "paths//metrics/get/responses/404: added",
    "paths//metrics/get/responses/200/content/application/openmetrics-text: added",
    # Operators have routes of their own, and may drain a model.
    "paths//operator/*: added",
    "components/schemas/ClientJob*: added",
    "components/schemas/KeyView: added",
    "components/schemas/ModelState: added",
    "components/schemas/Spent: added",
    "components/schemas/SuspendedKey: added",
    "paths//*/post/responses/409/description: changed: *",
    "paths//*/post/responses/409/content/application/problem+json/examples/drained: added",
    # What is transparent in a mask is kept.
    "components/schemas/InpaintBody/properties/mask/description: changed: *",
    "paths//inpaint/*/mask/description: changed: *",
)


@pytest.fixture
def document(client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a document."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from walk(child)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values differ, and how: `path: added`, `path: gone` or `path: changed: this to that`.

    Entries of lists of names (`required`, `enum`) are told apart by themselves, those of other lists by their number.
    """
    if type(old) is not type(new) or not isinstance(old, dict | list):
        if type(old) is not type(new) or old != new:
            yield f"{place}: changed: {old!r} to {new!r}"
        return
    old, new = _by_name(old), _by_name(new)
    for name in {**old, **new}:
        there = f"{place}/{name}".lstrip("/")
        if name not in new:
            yield f"{there}: gone"
        elif name not in old:
            yield f"{there}: added"
        else:
            yield from differences(old[name], new[name], there)


def _by_name(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if all(isinstance(entry, str) for entry in value):
        return {entry: entry for entry in value}
    return dict(enumerate(value))


def test_it_is_what_it_was_but_for_what_is_allowed(document, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--record-golden"):
        GOLDEN.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"recorded in {GOLDEN}")
    found = list(differences(json.loads(GOLDEN.read_text()), document))
    others = [line for line in found if not any(fnmatchcase(line, pattern) for pattern in ALLOWED)]
    assert not others, "\n".join(others)
    stale = [pattern for pattern in ALLOWED if not any(fnmatchcase(line, pattern) for line in found)]
    assert stale == [], "allowed, and not there"


def test_differences_are_found() -> None:
    old = {"a": {"b": 1, "required": ["x", "y"]}, "c": [{"d": 1}], "e": {}, "f": 1, "g": []}
    new = {"a": {"b": 2, "required": ["x", "z", "y"]}, "c": [{"d": 1}, {"d": 2}], "f": True, "g": {}}
    assert set(differences(old, new)) == {
        "a/b: changed: 1 to 2",
        "a/required/z: added",
        "c/1: added",
        "e: gone",
        "f: changed: 1 to True",
        "g: changed: [] to {}",
    }
    assert list(differences(old, old)) == []


def test_every_reference_leads_somewhere(document) -> None:
    references = {node["$ref"] for node in walk(document) if "$ref" in node}
    references |= {to for node in walk(document) for to in node.get("discriminator", {}).get("mapping", {}).values()}
    assert len(references) > 10
    for reference in references:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in place, f"{reference} leads nowhere"
            place = place[part]


def test_every_operation_is_described(document) -> None:
    found = {(method, path) for path, method, _ in operations(document)}
    assert found >= {
        ("post", "/samples"),
        ("post", "/inpaint"),
        ("post", "/upscale"),
        ("post", "/colorize"),
        ("get", "/jobs/{job_id}"),
        ("delete", "/jobs/{job_id}"),
        ("get", "/jobs/{job_id}/grid.png"),
        ("get", "/jobs/{job_id}/images/{index}.png"),
        ("get", "/jobs/{job_id}/samples.npz"),
        ("get", "/models"),
        ("get", "/models/{name}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    for path, method, operation in operations(document):
        assert operation["description"], f"{method} {path}"
        assert operation["tags"], f"{method} {path}"


def test_every_error_is_described_as_a_problem(document) -> None:
    assert "HTTPValidationError" not in json.dumps(document), "FastAPI's own errors are never sent"
    statuses = {status for status, _, _ in KINDS.values()}
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                assert int(status) in statuses
                assert set(response["content"]) == {MEDIA_TYPE}, f"{method} {path} {status}"
                schema = response["content"][MEDIA_TYPE]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDetails"}, f"{method} {path} {status}"


def test_every_operation_tells_the_errors_that_any_can_answer_with(document) -> None:
    for path, method, operation in operations(document):
        open_to_all = path in ("/healthz", "/readyz", "/metrics")
        any_can = {"421", "500"} if open_to_all else {"401", "421", "422", "429", "500", "503"}
        if method != "get":
            any_can |= {"403", "408", "413"}
        if "{" in path:
            any_can |= {"404"}
        assert any_can - set(operation["responses"]) == set(), f"{method} {path}"


def test_every_operation_has_examples_that_are_valid(document) -> None:
    models = (
        SampleBody,
        InpaintBody,
        UpscaleBody,
        ColorizeBody,
        JobView,
        JobsView,
        ModelView,
        WorkersView,
        Sampler,
        FramesView,
        ScoreField,
        ProblemDetails,
        ClientJob,
        ClientJobs,
        KeyView,
        ModelState,
        SuspendedKey,
    )
    by_name: dict[str, type[BaseModel]] = {model.__name__: model for model in models}

    def check(content: dict[str, Any], where: str) -> None:
        schema = content["schema"].get("items", content["schema"])
        name = schema.get("$ref", "").rpartition("/")[2]
        found = document["components"]["schemas"].get(name, {}) if name else schema
        examples = [example["value"] for example in content.get("examples", {}).values()] or found.get("examples", [])
        whole = found.get("properties", {}).values()
        assert examples or (whole and all("examples" in value for value in whole)), f"{where} has no example"
        for example in examples:
            by_name[name].model_validate(example)

    for path, method, operation in operations(document):
        where = f"{method} {path}"
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                assert parameter.get("examples") or parameter["schema"].get("examples"), f"{where} {parameter['name']}"
        if "requestBody" in operation:
            check(operation["requestBody"]["content"]["application/json"], where)
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if media_type.endswith("json"):
                    check(content, f"{where} {status}")


def test_views_are_described_as_what_they_are(document) -> None:
    for view, media_type in (
        ("grid.png", "image/png"),
        ("images/{index}.png", "image/png"),
        ("samples.npz", "application/x-npz"),
    ):
        content = document["paths"][f"/jobs/{{job_id}}/{view}"]["get"]["responses"]["200"]["content"]
        assert set(content) == {media_type}


def test_examples_are_accepted(
    new_client, settings, document, models_dir: Path, tiny_card: ModelCard, tmp_path
) -> None:
    store = ModelStore(tmp_path)
    store.publish(tiny_card.model_copy(update={"name": "mnist"}), ModelStore(models_dir).weights(tiny_card))
    client = new_client(settings.model_copy(update={"models_dir": tmp_path, "default_model": "mnist"}))
    examples = document["components"]["schemas"]["SampleBody"]["examples"]
    assert len(examples) >= 3
    for example in examples:
        SampleBody.model_validate(example)
        assert client.post("/samples", json=example).status_code == 202


@pytest.mark.parametrize("body", [InpaintBody, UpscaleBody, ColorizeBody])
def test_the_form_of_a_completion_names_the_fields_of_its_body(document, body: type[SampleBody]) -> None:
    path = f"/{body.__name__.removesuffix('Body').lower()}"
    form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {*body.model_fields}
    assert form["properties"]["count"]["default"] == SampleBody.model_fields["count"].default


def test_the_page_of_documentation_needs_no_other_web_site(client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) >= 3
    for url in loaded:
        assert ":" not in url
        assert client.get(urljoin("/docs", url)).status_code == 200, url
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


def test_what_needs_a_key_says_so(document) -> None:
    for path, method, operation in operations(document):
        needs = path not in ("/healthz", "/readyz", "/metrics")
        allowed = [{"key": []}] if path.startswith("/operator/") else [{"key": []}, {}]
        assert operation.get("security") == (allowed if needs else None), f"{method} {path}"
        assert ("401" in operation["responses"], "429" in operation["responses"]) == (needs, needs)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_operations_have_names_that_generated_clients_can_live_with(document) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert [
        name
        for name in ids
        if not re.fullmatch("(create|get|list|stream|cancel|delete|drain|suspend|resume)[A-Z][A-Za-z]*", name)
    ] == []
    assert {"createSamples", "createInpainting", "getJob", "listJobs", "cancelJob", "getGrid"} <= set(ids)


def test_links_lead_from_an_accepted_job_to_all_that_can_be_asked_of_it(document) -> None:
    ids = {operation["operationId"]: path for path, _, operation in operations(document)}
    of_jobs = {key for key, path in ids.items() if path.startswith("/jobs/{job_id}")}
    for asking in ("/samples", "/inpaint", "/upscale", "/colorize"):
        links = document["paths"][asking]["post"]["responses"]["202"]["links"]
        assert {link["operationId"] for link in links.values()} == of_jobs
        assert {link["parameters"]["job_id"] for link in links.values()} == {"$response.body#/id"}
    assert len(of_jobs) >= 11


def test_the_document_is_made_once(client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a while, in which nobody else would be answered."""
    made: list[str] = []
    plain = client.app.openapi

    def counted() -> dict[str, Any]:
        made.append("")
        document: dict[str, Any] = plain()
        return document

    monkeypatch.setattr(client.app, "openapi", counted)
    asked = [client.begin("GET", "/openapi.json") for _ in range(8)]
    assert len({answer.result(60).content for answer in asked}) == 1
    assert len(made) == 1
