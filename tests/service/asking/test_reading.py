"""Reading requests: what is null or empty is left out, and bodies as editors, browsers and proxies make them."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

from service.asking.schemas import ColorizeBody, InpaintBody, InpaintFields, SampleBody, UpscaleBody
from service.middleware import PIECE_BYTES

JSON = {"Content-Type": "application/json"}
OPTIONAL = [name for name in InpaintFields.model_fields]
WHITE = np.full((8, 8), 255, np.uint8)


def same(job: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two jobs were asked for with the same words."""
    of = ("kind", "model", "version", "count", "sampler", "labels", "guidance", "frames", "priority", "deadline_at")
    return [job[name] for name in of] == [other[name] for name in of]


@pytest.mark.parametrize("name", [*SampleBody.model_fields])
def test_null_is_the_same_as_left_out(client, name: str) -> None:
    assert same(client.submit(**{name: None}), client.submit())


@pytest.mark.parametrize("name", ["levels", "steps_per_level", "step_size", "sigma_max", "sigmas"])
def test_null_is_the_same_as_left_out_in_what_is_inside(client, name: str) -> None:
    assert same(client.submit(sampler={name: None}), client.submit(sampler={}))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"sampler": {"name": None}}, {"sampler": {}}),
        ({"sampler": {"name": None, "levels": 3}}, {"sampler": {"levels": 3}}),
        ({"webhook": {"url": "https://93.184.216.34/", "secret": None}}, {}),
    ],
)
def test_null_is_the_same_as_left_out_of_what_tells_members_apart(
    new_client, settings, asked: dict[str, Any], meant: dict[str, Any]
) -> None:
    client = new_client(settings.model_copy(update={"webhook_secret": "whsec_" + 43 * "A" + "="}))
    assert same(client.submit(**asked), client.submit(**meant))


@pytest.mark.parametrize("unknown", ["cuont", "sampelr", "what"])
def test_an_unknown_field_is_refused_whatever_it_is(client, refusal: Callable[..., str], unknown: str) -> None:
    told = [refusal(client.post("/samples", json={unknown: value}), f"/{unknown}") for value in (None, 5, "", {})]
    assert len(set(told)) == 1
    assert f"there is no field {unknown}" in told[0]
    assert ("did you mean" in told[0]) is (unknown != "what")


def test_null_makes_no_field_of_what_is_none(client, refusal: Callable[..., str]) -> None:
    asked = {"sampler": {"name": "heun", "feedback": None}}
    assert "there is no field feedback" in refusal(client.post("/samples", json=asked), "/sampler/feedback")


def test_null_in_a_list_is_no_label(client, refusal: Callable[..., str]) -> None:
    assert "labels 1 is null" in refusal(client.post("/samples", json={"labels": [0, None]}), "/labels/1")


@pytest.mark.parametrize("query", ["limit=&cursor=", "state=", "model=&", "limit", "state=&model=&cursor=&limit=20"])
def test_an_empty_parameter_is_left_out(client, query: str) -> None:
    job = client.submit()
    answer = client.get(f"/jobs?{query}")
    assert answer.status_code == 200, answer.text
    assert [one["id"] for one in answer.json()["jobs"]] == [job["id"]]


@pytest.mark.parametrize("view", ["grid.png", "animation.webp", "samples.npz"])
def test_an_empty_parameter_of_a_view_is_left_out(client, work: Callable[[], None], view: str) -> None:
    job = client.submit(count=2, frames=2, seed=1)
    work()
    plain = client.get(f"/jobs/{job['id']}/{view}")
    empty = client.get(f"/jobs/{job['id']}/{view}?scale=&columns=&padding=&fps=&background=")
    assert plain.status_code == empty.status_code == 200, empty.text
    assert plain.content == empty.content


@pytest.mark.parametrize("body", [SampleBody, InpaintBody, UpscaleBody, ColorizeBody])
def test_the_document_says_so(body: type[SampleBody]) -> None:
    described = body.model_json_schema()
    for name, field in described["properties"].items():
        optional = name not in described.get("required", ())
        assert ({"type": "null"} in field.get("anyOf", ())) is optional, name
    assert body.model_json_schema() == described


@pytest.mark.parametrize("name", [*OPTIONAL, "mask"])
def test_an_empty_field_of_a_form_is_left_out(
    client, png: Callable[..., bytes], picture: np.ndarray, name: str
) -> None:
    transparent = np.stack([*[picture] * 3, np.eye(8, dtype=np.uint8) * 255], -1)
    files = {"image": ("a.png", png(transparent), "image/png")}
    plain = client.post("/inpaint", files=files)
    assert plain.status_code == 202, plain.text
    empty = client.post("/inpaint", files=files, data={name: ""})
    assert empty.status_code == 202, empty.text
    assert same(empty.json(), plain.json())


def test_an_empty_file_of_a_form_is_left_out(client, png: Callable[..., bytes], picture: np.ndarray, refusal) -> None:
    image = png(np.stack([*[picture] * 3, np.eye(8, dtype=np.uint8) * 255], -1))

    def post(**files: bytes) -> httpx.Response:
        """As a browser sends a form: a file that was not chosen has an empty name."""
        head = 'Content-Disposition: form-data; name="{}"; filename="{}"\r\nContent-Type: application/octet-stream'
        parts = [(head.format(name, "a.png" if file else ""), file) for name, file in files.items()]
        content = b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + file + b"\r\n" for head, file in parts)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer: httpx.Response = client.post("/inpaint", content=content + b"--x--\r\n", headers=headers)
        return answer

    assert post(image=image, mask=b"").status_code == 202
    assert "missing" in refusal(post(image=b"", mask=png(WHITE)), "/image")
    assert "no such file" in refusal(post(image=image, other=b""), "/other")
    unknown = client.post("/inpaint", files={"image": ("a.png", image, "image/png")}, data={"other": ""})
    assert "there is no field other" in refusal(unknown, "/other")


def test_a_byte_order_mark_is_taken(client, png: Callable[..., bytes], picture: np.ndarray) -> None:
    asked = b"\xef\xbb\xbf" + json.dumps({"count": 3}).encode()
    assert client.post("/samples", content=asked, headers=JSON).json()["count"] == 3
    files = {"image": png(picture), "mask": png(WHITE)}
    sampler = {"sampler": '\ufeff{"name": "heun"}'}
    assert client.post("/inpaint", files=files, data=sampler).json()["sampler"]["name"] == "heun"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP, identity"])
@pytest.mark.parametrize("url", ["/samples", "/inpaint", "/upscale", "/colorize"])
def test_a_compressed_body_is_not_understood(client, redis: Redis, problem: Any, coding: str, url: str) -> None:
    compressed = gzip.compress(b'{"count": 3}')
    refused: httpx.Response = client.post(url, content=compressed, headers={**JSON, "Content-Encoding": coding})
    assert coding.lower() in problem(refused, 415, "unsupported-media-type")["detail"]
    assert refused.headers["accept-encoding"] == "identity"
    assert redis.dbsize() == 0


def test_a_body_that_says_that_it_is_not_compressed(client) -> None:
    asked = {**JSON, "Content-Encoding": "identity"}
    assert client.post("/samples", content=b"{}", headers=asked).status_code == 202


@pytest.mark.parametrize("path", ["/inpaint", "/upscale", "/colorize"])
def test_json_is_as_wide_as_it_may_be_without_pictures(
    new_client, settings, problem: Callable[..., Any], path: str
) -> None:
    """A picture may be large, but what is beside it is soon read or refused."""
    client = new_client(settings.model_copy(update={"max_json_bytes": 2000}))
    told = problem(client.post(path, json={f"f{n}": 0 for n in range(501)}), 413, "too-large")["detail"]
    assert told == "the JSON has too many values: besides its pictures 2000 bytes are allowed"
    problem(client.post(path, json={"image": "A" * 2**20, "labels": [0] * 1000}), 413, "too-large")
    problem(client.post(path, json={"image": "A" * 2**20, "labels": [0] * 900}), 422, "invalid")


def test_long_json_of_a_form_is_read_all_the_same(client, refusal: Callable[..., str]) -> None:
    fields = {"image": b"x", "mask": b"x", "labels": (None, "[" * 60_000)}
    assert "this is not JSON" in refusal(client.post("/inpaint", files=fields), "/labels")
    fields["labels"] = (None, json.dumps(["x"] * 10_000))
    assert client.post("/inpaint", files=fields).status_code == 422


@pytest.mark.parametrize("charset", ["punycode", "undefined", "utf-16", "idna", "rot13", "x" * 500])
def test_a_form_is_read_as_utf_8_and_by_no_other_codec(client, problem: Callable[..., Any], charset: str) -> None:
    """Some of Python's take for ever, and some fail."""
    body = b'--x\r\nContent-Disposition: form-data; name="f-\xff"\r\n\r\n2n7caaaa\r\n--x--\r\n'
    told = problem(
        _form(client, f"multipart/form-data; boundary=x; charset={charset}", body), 415, "unsupported-media-type"
    )
    assert told["detail"].startswith("the charset of the form is ")
    assert told["detail"].endswith("; send utf-8")


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"'])
def test_a_form_may_say_that_it_is_utf_8(client, refusal: Callable[..., str], charset: str) -> None:
    body = "--x\r\nContent-Disposition: form-data; name=f\r\n\r\nü\r\n--x--\r\n".encode()
    assert "missing" in refusal(_form(client, f"multipart/form-data; boundary=x{charset}", body), "/image")


def _form(client: Any, kind: str, body: bytes) -> httpx.Response:
    answer: httpx.Response = client.post("/inpaint", content=body, headers={"Content-Type": kind})
    return answer


def test_a_large_form_comes_in_pieces_between_which_others_have_their_turn(client) -> None:
    """Whatever the pieces were that it came in."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def ask() -> None:
        counting = asyncio.create_task(count())
        answer = await client._http.post("/inpaint", files={"image": b"x" * 2**22})
        counting.cancel()
        assert answer.status_code == 422
        assert turns >= 2**22 / PIECE_BYTES

    client.call(ask())
