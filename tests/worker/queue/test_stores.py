"""Stores: a directory and a bucket of S3 keep what they are given, and say so when they cannot."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import buckets
from worker.queue import stores
from worker.queue.stores import Damaged, StoreAway, Stores, check_url, is_reference, reference

JOB, OTHER = "a" * 24, "b" * 24
URLS = {
    "file:///var/lib/scoreserve": "file:///var/lib/scoreserve",
    "file:///var/lib/": "file:///var/lib",
    "s3://bucket": "s3://bucket",
    "s3://bucket/": "s3://bucket",
    "s3://my-bucket.eu/some/prefix/": "s3://my-bucket.eu/some/prefix",
}


@pytest.mark.parametrize("url", URLS)
def test_addresses_of_stores(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "find_spec", lambda _: object())
    assert check_url(url) == check_url(check_url(url)) == URLS[url]


@pytest.mark.parametrize(
    "url",
    [
        "", "results", "/var/lib", "file://", "file:///", "file://host/directory", "http://host/directory", "memory://x",
        "s3://", "s3:///key", "s3://UPPER/x", "s3://user:secret@bucket/x", "s3://bucket/?x=1", "s3://bucket/#x",
        "s3://bucket/a b", "s3://bucket/*", "redis://host/0",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "find_spec", lambda _: object())
    with pytest.raises(ValueError, match="file:///DIRECTORY"):
        check_url(url)


def test_what_a_store_takes_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"gs:// takes gcsfs.*pip install 'scoreserve\[gs\]'"):
        check_url("gs://bucket/prefix")
    with pytest.raises(StoreAway, match="s3fs"):
        Stores().of("s3://bucket")
    assert check_url("file:///var") == "file:///var"


def test_a_reference_is_told_from_pixels() -> None:
    kept = reference(b"pixels")
    assert is_reference(kept)
    assert kept != reference(b"pixel")
    assert not any(is_reference(value) for value in (b"", b"pixels", kept[:-1], bytes(len(kept)), kept + b"0"))


def test_what_is_put_is_got(results_url: str) -> None:
    here, there = Stores(), Stores()
    kept = [here.put(results_url, JOB, number, bytes([number]) * 1000) for number in range(3)]
    assert kept[1] == here.put(results_url, JOB, 1, bytes([1]) * 1000), "done twice it is the same"
    assert [there.get(results_url, JOB, n, kept[n]) for n in range(3)] == [bytes([n]) * 1000 for n in range(3)]
    with pytest.raises(FileNotFoundError):
        there.get(results_url, JOB, 0, kept[1])
    with pytest.raises(FileNotFoundError):
        there.get(results_url, OTHER, 0, kept[0])


def test_jobs_are_listed_and_removed(results_url: str) -> None:
    begun, here = time.time(), Stores()
    assert list(here.of(results_url).jobs()) == []
    kept = {job: here.put(results_url, job, 7, job.encode()) for job in (JOB, OTHER)}
    here.of(results_url).write("notes/of-somebody", b"else")
    here.put(results_url, JOB, 8, b"more")
    store = Stores().of(results_url)
    assert sorted(store.jobs()) == [JOB, OTHER], "and not what is none"
    for job in (JOB, OTHER):
        at = store.written_at(job)
        assert at is not None
        assert begun - 2 <= at <= time.time() + 2
    store.remove(JOB)
    store.remove(JOB)
    assert list(store.jobs()) == [OTHER]
    assert store.written_at(JOB) is None
    with pytest.raises(FileNotFoundError):
        here.get(results_url, JOB, 7, kept[JOB])
    assert here.get(results_url, OTHER, 7, kept[OTHER]) == OTHER.encode()
    assert store.read("notes/of-somebody") == b"else"


def test_what_is_not_what_was_put_is_never_shown(results_url: str) -> None:
    here = Stores()
    kept = here.put(results_url, JOB, 0, b"pixels")
    (name,) = [f"{JOB}/0-{kept.decode().partition(':')[2]}"]
    here.of(results_url).write(name, b"pixelS")
    with pytest.raises(Damaged, match=JOB):
        here.get(results_url, JOB, 0, kept)


def test_who_reads_while_it_is_written_sees_all_or_nothing(directory_url: str) -> None:
    """In a bucket that is for its server to see to."""
    here, data, stop = Stores(), os.urandom(2**20), threading.Event()
    kept = here.put(directory_url, JOB, 0, data)

    def write() -> None:
        while not stop.is_set():
            here.put(directory_url, JOB, 0, data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            assert here.get(directory_url, JOB, 0, kept) == data
    finally:
        stop.set()
        writer.join()


def test_a_write_that_fails_leaves_nothing(
    directory_url: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Stores()
    here.put(directory_url, JOB, 0, b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreAway, match="No space left"):
            here.put(directory_url, JOB, 1, b"second")
    assert len(list((directory / JOB).iterdir())) == 1
    here.put(directory_url, JOB, 1, b"second")
    assert len(list((directory / JOB).iterdir())) == 2


def test_a_directory_that_is_missing_is_away_and_is_not_made(directory_url: str, directory: Path) -> None:
    """It may lie on a disk that is not mounted, and what is made in its place on another."""
    here, empty = Stores(), Stores()
    kept = here.put(directory_url, JOB, 0, b"pixels")
    aside = directory.with_name("elsewhere")
    directory.rename(aside)
    asks: list[Callable[[Stores], object]] = [
        lambda stores: stores.get(directory_url, JOB, 0, kept),
        lambda stores: stores.put(directory_url, JOB, 1, b"more"),
        lambda stores: list(stores.of(directory_url).jobs()),
    ]
    for ask in asks:
        for of in (here, empty):
            with pytest.raises(StoreAway, match=r"no directory .*results .*: mount the disk that has it, or make it"):
                ask(of)
    assert not directory.exists()
    aside.rename(directory)
    assert here.get(directory_url, JOB, 0, kept) == b"pixels"


def test_what_is_no_directory_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for name in ("file", "file/results"):
        with pytest.raises(StoreAway, match=rf"{name}: NotADirectory"):
            Stores().put((tmp_path / name).as_uri(), JOB, 0, b"pixels")


def test_a_bucket_that_cannot_be_reached_is_away(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Stores().put(bucket_url, JOB, 0, b"pixels")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    here = Stores()
    with pytest.raises(StoreAway):
        here.put(bucket_url, JOB, 0, b"pixels")
    with pytest.raises(StoreAway):
        here.get(bucket_url, JOB, 0, kept)
    with pytest.raises(StoreAway):
        list(here.of(bucket_url).jobs())


def test_a_bucket_whose_server_is_killed_is_away_until_it_is_there_again(
    s3_address: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = buckets.Way(int(s3_address.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
    here = Stores()
    kept = here.put(bucket_url, JOB, 0, b"pixels")
    way.cut()
    with pytest.raises(StoreAway):
        here.put(bucket_url, JOB, 1, b"more")
    with pytest.raises(StoreAway):
        here.get(bucket_url, JOB, 0, kept)
    way.mend()
    assert here.get(bucket_url, JOB, 0, kept) == b"pixels"
    assert here.get(bucket_url, JOB, 1, here.put(bucket_url, JOB, 1, b"more")) == b"more"
    way.close()


def test_a_bucket_that_there_is_not_is_away_for_who_writes(bucket_url: str) -> None:
    with pytest.raises(StoreAway, match="bucket"):
        Stores().put("s3://another-bucket/x", JOB, 0, b"pixels")


def test_a_store_that_comes_back_soon_is_read(directory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Stores()
    kept, read, failures = here.put(directory_url, JOB, 0, b"pixels"), stores.Directory.read, [1, 2]

    def sometimes(store: stores.Directory, name: str) -> bytes:
        if failures:
            failures.pop()
            raise StoreAway("for now")
        return read(store, name)

    monkeypatch.setattr(stores, "READ_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(stores.Directory, "read", sometimes)
    assert here.get(directory_url, JOB, 0, kept) == b"pixels"
    failures[:] = [1, 2, 3]
    with pytest.raises(StoreAway, match="for now"):
        here.get(directory_url, JOB, 0, kept)
