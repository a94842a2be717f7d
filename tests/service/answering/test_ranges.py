"""Byte ranges of the views that are pictures."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest

from models.store import ModelStore
from service.answering import ranges

Check = Callable[..., Any]
PICTURES = ("grid.png", "images/0.png", "animation.webp", "animation.gif", "filmstrip.png")


@pytest.fixture
def job(client, work: Callable[[], None]) -> str:  # type: ignore[no-untyped-def]
    id_: str = client.submit(count=2, seed=4, frames=2)["id"]
    work()
    return f"/jobs/{id_}"


def test_a_picture_can_be_had_in_parts(client, job: str) -> None:
    for view in PICTURES:
        whole = client.get(f"{job}/{view}")
        assert whole.headers["accept-ranges"] == "bytes"
        length, middle = len(whole.content), len(whole.content) // 2
        parts = [
            client.get(f"{job}/{view}", headers={"Range": r}) for r in (f"bytes=0-{middle - 1}", f"bytes={middle}-")
        ]
        assert [part.status_code for part in parts] == [206, 206]
        assert parts[0].content + parts[1].content == whole.content
        ends = [f"bytes 0-{middle - 1}/{length}", f"bytes {middle}-{length - 1}/{length}"]
        assert [part.headers["content-range"] for part in parts] == ends
        for part in parts:
            assert part.headers["content-length"] == str(len(part.content))
            for name in ("content-type", "etag", "accept-ranges"):
                assert part.headers[name] == whole.headers[name]
            assert part.headers["cache-control"].startswith("private, max-age=")  # of fewer seconds, a moment later


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=7-9", 7, 10),
        ("BYTES= 7-9 ", 7, 10),
        ("bytes=5-100000000", 5, None),
        ("bytes=-3", -3, None),
        ("bytes=-100000000", 0, None),
    ],
)
def test_a_part_is_told_by_its_first_and_last_byte_or_counted_from_the_end(client, job, asked, begin, end) -> None:
    whole = client.get(f"{job}/grid.png").content
    part = client.get(f"{job}/grid.png", headers={"Range": asked})
    assert part.status_code == 206
    assert part.content == whole[begin:end]
    first = whole.index(part.content) if begin != 0 else 0
    assert part.headers["content-range"] == f"bytes {first}-{first + len(part.content) - 1}/{len(whole)}"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=9-7", "bytes=a-b", "bytes=+1-2", "bytes=1-2,4-5", "lines=1-2", "0-5",
     "bytes=٣-", f"bytes={'9' * 5000}-"],
)  # fmt: skip
def test_what_is_no_part_or_several_is_all(client, job: str, asked: str) -> None:
    answer = client.get(f"{job}/grid.png", headers={"Range": asked.encode()})
    assert answer.status_code == 200
    assert "content-range" not in answer.headers
    assert answer.content == client.get(f"{job}/grid.png").content


def test_two_ranges_are_several(client, job: str) -> None:
    twice = [("Range", "bytes=0-1"), ("Range", "bytes=4-5")]
    assert client.get(f"{job}/grid.png", headers=twice).status_code == 200


@pytest.mark.parametrize("asked", ["bytes={}-", "bytes={}-1000000", "bytes=-0", f"bytes={'9' * 50}-"])
def test_what_the_file_has_not_is_a_problem_that_tells_its_length(client, job: str, problem: Check, asked: str) -> None:
    length = len(client.get(f"{job}/grid.png").content)
    answer = client.get(f"{job}/grid.png", headers={"Range": asked.format(length)})
    assert str(length) in problem(answer, 416, "range-not-satisfiable")["detail"]
    assert answer.headers["content-range"] == f"bytes */{length}"
    assert client.get(f"{job}/grid.png", headers={"Range": f"bytes={length - 1}-"}).status_code == 206


def test_a_part_of_another_file_is_not_sent(client, job: str) -> None:
    whole = client.get(f"{job}/grid.png")
    tag = whole.headers["etag"]

    def ask(condition: str, asked: str = "bytes=2-4") -> Any:
        return client.get(f"{job}/grid.png", headers={"Range": asked, "If-Range": condition})

    same = ask(tag)
    assert (same.status_code, same.content) == (206, whole.content[2:5])
    for other in ('"other"', f"W/{tag}", "Wed, 21 Oct 2026 07:28:00 GMT", tag.strip('"'), f"{tag}, {tag}"):
        for asked in ("bytes=2-4", "bytes=100000000-"):
            answer = ask(other, asked)
            assert (answer.status_code, answer.content) == (200, whole.content), other


def test_who_has_the_file_needs_no_part(client, job: str) -> None:
    tag = client.get(f"{job}/grid.png").headers["etag"]
    for asked in ("bytes=0-1", "bytes=100000000-"):
        assert client.get(f"{job}/grid.png", headers={"Range": asked, "If-None-Match": tag}).status_code == 304


def test_head_tells_of_parts_and_knows_none(client, job: str) -> None:
    """Range is defined for GET alone."""
    for asked in ("bytes=0-1", "bytes=100000000-"):
        head = client.begin("HEAD", f"{job}/grid.png", headers={"Range": asked}).result(60)
        assert head.status_code == 200
        assert head.headers["accept-ranges"] == "bytes"
        assert "content-length" not in head.headers, "nothing is drawn for it"
        assert head.content == b""


def test_what_is_sent_while_it_is_made_has_no_parts(client, job: str) -> None:
    for view in ("samples.npz", "images.zip"):
        for method in ("GET", "HEAD"):
            answer = client.begin(method, f"{job}/{view}", headers={"Range": "bytes=0-1"}).result(60)
            assert answer.status_code == 200
            assert answer.headers["accept-ranges"] == "none"
            assert "content-range" not in answer.headers
        assert answer.headers["etag"] == client.get(f"{job}/{view}").headers["etag"]


def test_the_preview_of_a_model_has_parts_too(new_client, settings, tmp_path, tiny_card, models_dir) -> None:
    store = ModelStore(tmp_path)
    path = store.publish(tiny_card, ModelStore(models_dir).weights(tiny_card))
    (path / "preview.png").write_bytes(bytes(range(100)))
    client = new_client(settings.model_copy(update={"models_dir": tmp_path}))
    part = client.get("/models/tiny/preview.png", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))


def test_the_document_tells_what_has_parts(client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    with_parts = set()
    for path, methods in paths.items():
        for operation in methods.values():
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            told = {"206" in operation["responses"], "416" in operation["responses"], {"Range", "If-Range"} <= names}
            assert len(told) == 1, path
            if told == {True}:
                with_parts.add(path)
                answers = operation["responses"]
                assert answers["206"]["content"] == answers["200"]["content"]
    assert with_parts == {"/models/{name}/preview.png", *(f"/jobs/{{job_id}}/{view}" for view in PICTURES)} - {
        "/jobs/{job_id}/images/0.png"
    } | {"/jobs/{job_id}/images/{index}.png"}


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_answer() -> None:
    file, sent = io.BytesIO(bytes(10)), []

    async def send(message: Any) -> None:
        sent.append(message)
        file.truncate(0)

    async def receive() -> Any:
        raise AssertionError

    answer = ranges.respond_whole(file, {}, "image/png")
    with pytest.raises(OSError, match="shorter"):
        asyncio.run(asyncio.wait_for(answer({}, receive, send), 60))
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert file.closed
