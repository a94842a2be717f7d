"""Webhooks: what a receiver gets, and what happens when it does not take it."""

import base64
import hmac
import json
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import httpx
import pytest
from redis import Redis

from service.settings import ServiceSettings
from service.webhooks import delivery as webhooks
from tests.clocks import set_back
from tests.service.webhooks.conftest import CERTIFICATE, Receiver, Silent
from worker.queue import scripts
from worker.queue.keys import WEBHOOKS

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
MANY = 8, 1000, 1.0, "{}"  # slots of a client, looked at, seconds that the rest is put off, and what is under way
OTHER = "whsec_" + base64.b64encode(KEY[::-1]).decode()


@pytest.fixture
def settings(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    monkeypatch.setattr(webhooks, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    return settings.model_copy(update={"webhook_secret": SECRET, "webhook_networks": "127.0.0.0/8"})


def attempts(client: Any, result: str) -> float:
    """How many ended so."""
    name = f'scoreserve_webhook_deliveries_total{{result="{result}"}} '
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].removeprefix(name)) if lines else 0.0


def verified(headers: dict[str, str], body: bytes, key: bytes = KEY) -> bool:
    """Whether the signature is that of Standard Webhooks, made here from its words."""
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return wanted in headers["webhook-signature"].split()


@pytest.mark.parametrize("record", ["{", "null", '{"secret": "whsec_hidden"}'])
def test_a_record_that_cannot_be_read_holds_up_nobody(
    client, receiver: Receiver, until: Callable[..., None], redis: Redis, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    jobs = [client.submit(webhook={"url": receiver.url})["id"] for _ in range(3)]
    redis.hset(f"scoreserve:job:{jobs[0]}", "webhook", record)
    for job in jobs:
        client.delete(f"/jobs/{job}")
    until(lambda: len(receiver.got) == 2)
    until(lambda: attempts(client, "failed") >= 1)
    assert "hidden" not in caplog.text


def test_a_sealed_webhook_is_called_by_who_has_its_secret(
    client, new_client, settings: ServiceSettings, receiver: Receiver, until: Callable[..., None], redis: Redis
) -> None:
    """`client` has none: however often it is first, that is no attempt, and the pause does not grow."""
    settings = settings.model_copy(update={"sealing_secret": base64.urlsafe_b64encode(KEY).decode()})
    sealing = new_client(settings)
    job = sealing.submit(webhook={"url": receiver.url, "secret": OTHER})["id"]
    sealing.call(sealing._life.__aexit__(None, None, None))
    client.delete(f"/jobs/{job}")
    until(lambda: attempts(client, "failed") >= 5)
    assert not receiver.got
    sealing = new_client(settings)
    until(lambda: attempts(sealing, "delivered") == 1)
    ((_, headers, body),) = receiver.got
    assert verified(headers, body, KEY[::-1])
    assert redis.hget(f"scoreserve:job:{job}", "webhook_attempts") == b"1"


@pytest.mark.parametrize("end", ["finished", "cancelled", "failed"])
def test_a_receiver_gets_the_job_that_has_ended(
    client, receiver: Receiver, work: Callable[[], None], until: Callable[..., None], redis: Redis, end: str
) -> None:
    job = client.submit(count=2, webhook={"url": receiver.url}, deadline_seconds=0.2 if end == "failed" else 1000)
    assert not receiver.got
    if end == "finished":
        work()
    elif end == "cancelled":
        client.delete(job["links"]["self"])
    else:
        time.sleep(0.25)
        client.get(job["links"]["self"])
    until(lambda: attempts(client, "delivered") == 1)
    ((path, headers, body),) = receiver.got
    assert path == "/hook?a=b"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert verified(headers, body)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    event = json.loads(body)
    assert event["type"] == f"job.{end}"
    assert event["timestamp"] == event["data"]["ended_at"]
    assert event["data"] == client.get(job["links"]["self"]).json()
    until(lambda: not redis.exists(WEBHOOKS))


def test_its_links_are_below_the_path_that_a_proxy_has_for_the_service(
    new_client, settings, receiver: Receiver, until: Callable[..., None]
) -> None:
    client = new_client(settings.model_copy(update={"root_path": "/score"}))
    job = client.submit(webhook={"url": receiver.url})
    client.delete(job["links"]["self"])
    until(lambda: len(receiver.got) == 1)
    assert json.loads(receiver.got[0][2])["data"]["links"] == job["links"]
    assert job["links"]["self"] == f"/score/jobs/{job['id']}"


def test_a_secret_of_the_clients_own_and_two_of_the_service(
    new_client, settings, receiver: Receiver, until: Callable[..., None]
) -> None:
    client = new_client(settings.model_copy(update={"webhook_secret": f"{SECRET} {OTHER}"}))
    own = "whsec_" + base64.b64encode(b"x" * 24).decode()
    for hook in ({"url": receiver.url, "secret": own}, {"url": receiver.url}):
        job = client.submit(webhook=hook)
        assert own not in json.dumps(job)
        client.delete(job["links"]["self"])
    until(lambda: len(receiver.got) == 2)
    received = sorted(receiver.got, key=lambda got: len(got[1]["webhook-signature"]))
    assert [verified(*received[0][1:], key) for key in (b"x" * 24, KEY)] == [True, False]
    assert [verified(*received[1][1:], key) for key in (KEY, KEY[::-1], b"x" * 24)] == [True, True, False]


def test_what_is_not_taken_comes_again_under_the_same_id(
    client, receiver: Receiver, until: Callable[..., None], redis: Redis
) -> None:
    receiver.answers = [(500, {}), (404, {}), (307, {"Location": receiver.url + "&redirected"})]
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "delivered") == 1)
    assert attempts(client, "failed") == 3
    assert [path for path, _, _ in receiver.got] == ["/hook?a=b"] * 4
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert len({body for _, _, body in receiver.got}) == 1
    assert all(verified(headers, body) for _, headers, body in receiver.got)
    until(lambda: not redis.exists(WEBHOOKS))


def test_the_pauses_between_attempts_grow(client, receiver: Receiver, until: Callable[..., None]) -> None:
    receiver.answers = [(500, {})] * 4
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "delivered") == 1)
    pauses = [later - earlier for earlier, later in pairwise(receiver.at)]
    for number, pause in enumerate(pauses):
        assert pause > 0.9 * 0.05 * 3**number, pauses
    assert len(pauses) == 4


def test_no_pause_is_longer_than_an_hour(
    client, receiver: Receiver, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_PAUSE", 10.0**9)
    receiver.answers = [(500, {})]
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "failed") == 1)
    until(lambda: 0.9 * 3600 - 60 < redis.zrange(WEBHOOKS, 0, 0, withscores=True)[0][1] - time.time() < 1.1 * 3600)


@pytest.mark.parametrize("retry_after", [lambda: "100", lambda: formatdate(time.time() + 101, usegmt=True)])
def test_a_receiver_that_is_gone_is_left_alone_and_one_that_asks_for_time_has_it(
    client, receiver: Receiver, until: Callable[..., None], redis: Redis, retry_after: Callable[[], str]
) -> None:
    receiver.answers = [(410, {})]
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "gone") == 1)
    until(lambda: not redis.exists(WEBHOOKS))
    receiver.answers = [(503, {"Retry-After": retry_after()})]
    begun = time.time()
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "failed") == 1)
    until(lambda: redis.zrange(WEBHOOKS, 0, -1, withscores=True)[0][1] > begun + 99)


def test_a_receiver_has_a_bounded_time(
    client, receiver: Receiver, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 0.3)
    receiver.pause = 1.0
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "failed") >= 1)
    receiver.pause = 0.0
    until(lambda: attempts(client, "delivered") == 1)


def test_a_name_that_leads_to_a_private_address_is_not_called(
    new_client, settings, receiver: Receiver, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    client = new_client(settings.model_copy(update={"webhook_networks": ""}))
    point(monkeypatch, "127.0.0.1")
    url = f"https://hooks.test:{receiver.port}/"
    client.delete(client.submit(webhook={"url": url})["links"]["self"])
    until(lambda: attempts(client, "refused") == 2, 20)  # it may lead elsewhere by now
    assert not receiver.got


@pytest.mark.parametrize(
    ("settled", "result"), [({"webhook_networks": ""}, "refused"), ({"webhook_secret": ""}, "failed")]
)
def test_what_one_service_is_not_set_up_for_another_does(
    new_client,
    settings,
    receiver: Receiver,
    until: Callable[..., None],
    settled: dict[str, str],
    result: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "PAUSE_FACTOR", 1.0)  # who of the two comes first is chance, each time
    able = new_client(settings)
    job = able.submit(webhook={"url": receiver.url})
    able.call(able._life.__aexit__(None, None, None))
    other = new_client(settings.model_copy(update=settled))
    assert other.delete(job["links"]["self"]).status_code == 200
    until(lambda: attempts(other, result) >= 1)
    assert not receiver.got
    able = new_client(settings)
    until(lambda: attempts(able, "delivered") == 1)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("receiver", ["tls"], indirect=True)
def test_the_address_that_was_checked_is_called_under_the_name_that_was_asked_for(
    client, receiver: Receiver, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved once; certificate, SNI and Host are those of the name."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    asked = point(monkeypatch, "127.0.0.1", then="127.9.9.9")
    client.delete(client.submit(webhook={"url": f"https://hooks.test:{receiver.port}/"})["links"]["self"])
    until(lambda: attempts(client, "delivered") == 1)
    assert asked.count("hooks.test") == 1
    assert receiver.names == ["hooks.test"]
    assert receiver.got[0][1]["host"] == f"hooks.test:{receiver.port}"
    point(monkeypatch, "127.0.0.1")
    client.delete(client.submit(webhook={"url": f"https://other.test:{receiver.port}/"})["links"]["self"])
    until(lambda: attempts(client, "failed") >= 1)
    assert len(receiver.got) == 1, "its certificate is of another name"


def point(monkeypatch: pytest.MonkeyPatch, address: str, then: str | None = None) -> list[str]:
    """Makes names under .test lead to an address, and the second time elsewhere; returns the names asked for."""
    real, asked = socket.getaddrinfo, list[str]()

    def getaddrinfo(name: Any, *rest: Any, **options: Any) -> Any:
        if not str(name).endswith(".test"):
            return real(name, *rest, **options)
        asked.append(name)
        found = address if then is None or len(asked) == 1 else then
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_service_that_died_is_replaced_by_another(
    new_client, settings, receiver: Receiver, redis: Redis, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks while the job ends; the first that does claims it and dies; the next takes over after its lease."""
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    first = new_client(settings)
    job = first.submit(webhook={"url": receiver.url})
    first.call(first._life.__aexit__(None, None, None))
    redis.eval(scripts.END, 0, job["id"], "cancelled", time.time(), 3600, "cancelled")
    ((claimed, _, attempt, _),) = redis.eval(webhooks.CLAIM, 0, 0.5, 10, *MANY)
    assert (claimed.decode(), attempt) == (job["id"], 1)
    assert redis.eval(webhooks.CLAIM, 0, 0.5, 10, *MANY) == []
    assert not receiver.got
    second = new_client(settings)
    until(lambda: attempts(second, "delivered") == 1)
    assert len(receiver.got) == 1
    first._life = first.app.router.lifespan_context(first.app)
    first.call(first._life.__aenter__())


def test_a_clock_that_is_set_back_holds_nothing_up(
    new_client, settings, receiver: Receiver, redis: Redis, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One webhook that is due, and one that a service which died had in hand."""
    client = new_client(settings.model_copy(update={"redis_url": settings.redis_url}))
    jobs = [client.submit(webhook={"url": receiver.url}) for _ in range(2)]
    client.call(client._life.__aexit__(None, None, None))
    for job in jobs:
        redis.eval(scripts.END, 0, job["id"], "cancelled", time.time(), 3600, "cancelled")
    assert len(redis.eval(webhooks.CLAIM, 0, 0.5, 1, *MANY)) == 1
    set_back(redis, 3600)
    second = new_client(settings)
    until(lambda: attempts(second, "delivered") == 2)
    client._life = client.app.router.lifespan_context(client.app)
    client.call(client._life.__aenter__())


def test_services_share_the_work(new_client, settings, receiver: Receiver, until: Callable[..., None]) -> None:
    clients = [new_client(settings) for _ in range(3)]
    jobs = [clients[0].submit(webhook={"url": receiver.url}) for _ in range(20)]
    for job in jobs:
        clients[1].delete(job["links"]["self"])
    until(lambda: sum(attempts(client, "delivered") for client in clients) == 20)
    assert len(receiver.got) == len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 20


def test_nothing_is_left_once_the_job_is_forgotten(
    client, receiver: Receiver, until: Callable[..., None], redis: Redis
) -> None:
    receiver.answers = [(500, {"Retry-After": "1000"})]
    job = client.submit(webhook={"url": receiver.url})
    client.delete(job["links"]["self"])
    until(lambda: attempts(client, "failed") == 1)
    record = f"scoreserve:job:{job['id']}"
    assert 0 < redis.pexpiretime(record) <= redis.pexpiretime(WEBHOOKS)
    redis.delete(record)
    redis.zadd(WEBHOOKS, {job["id"]: 0})
    until(lambda: attempts(client, "forgotten") == 1)
    assert not redis.exists(WEBHOOKS, record)


@pytest.mark.parametrize(
    ("hook", "pointer", "said"),
    [
        ({"url": "http://example.com/"}, "/webhook/url", "https"),
        ({"url": "https://10.0.0.1/"}, "/webhook/url", "10.0.0.1 is not a public address | a public https address"),
        ({"url": "https://example.com:25/"}, "/webhook/url", "port is 25"),
        ({"url": "https://"}, "/webhook/url", "no host"),
        ({"url": 5}, "/webhook/url", "string"),
        ({}, "/webhook/url", "missing"),
        ({"url": "https://example.com/"}, "/webhook/secret", "a secret of yours: whsec_"),
        ({"url": "https://example.com/", "secret": "whsec_QQ=="}, "/webhook/secret", "24 to 64 bytes"),
        (
            {"url": "https://example.com/", "secret": SECRET, "method": "PUT"},
            "/webhook/method",
            "there is no field method | url, secret",
        ),
    ],
)
def test_what_could_not_be_called_is_refused_at_once(
    new_client, settings, redis: Redis, refusal: Callable[..., str], hook: Any, pointer: str, said: str
) -> None:
    client = new_client(settings.model_copy(update={"webhook_networks": "", "webhook_secret": ""}))
    assert said in refusal(client.post("/samples", json={"webhook": hook}), pointer)
    assert redis.dbsize() == 0


def test_a_form_has_a_webhook_too(
    client,
    inpaint: Callable[..., httpx.Response],
    png: Callable[..., bytes],
    picture,
    half_mask,
    receiver: Receiver,
    until,
) -> None:
    job = inpaint("multipart", png(picture), png(half_mask), webhook=json.dumps({"url": receiver.url})).json()
    client.delete(job["links"]["self"])
    until(lambda: len(receiver.got) == 1)


@pytest.mark.parametrize("options", [{"webhook_secret": "secret"}, {"webhook_networks": "everything"}])
def test_settings_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="webhook_"):
        ServiceSettings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("alike", ["client", "host"])
def test_a_receiver_that_never_answers_holds_up_no_other(
    new_client, settings, receiver: Receiver, silent: Silent, until: Callable[..., None], alike: str
) -> None:
    """Many of one client, or of many clients to one host: another's comes at once, long before those are given up."""
    limits = {"max_webhooks": 12, "max_client_webhooks": 2, "max_host_webhooks": 3}
    client = new_client(settings.model_copy(update={**limits, "webhook_networks": "127.0.0.0/8"}))
    names = ["mallory"] * 30 if alike == "client" else [f"mallory{number}" for number in range(30)]
    jobs = [
        client.post("/samples", json={"webhook": {"url": silent.url}}, headers={"Client-Id": name}) for name in names
    ]
    for name, job in zip(names, jobs, strict=True):
        client.delete(job.headers["location"], headers={"Client-Id": name})
    begun = time.monotonic()
    client.delete(client.submit(webhook={"url": receiver.url})["links"]["self"])
    until(lambda: attempts(client, "delivered") == 1)
    assert time.monotonic() - begun < webhooks.ATTEMPT_SECONDS, "none of those has been given up"
    assert attempts(client, "failed") == 0


def test_what_found_no_slot_is_no_attempt(
    new_client, settings, receiver: Receiver, redis: Redis, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PUT_OFF_SECONDS", 0.05)
    receiver.pause = 0.05
    client = new_client(settings.model_copy(update={"max_client_webhooks": 5, "max_host_webhooks": 1}))
    jobs = [client.submit(webhook={"url": receiver.url}) for _ in range(12)]
    for job in jobs:
        client.delete(job["links"]["self"])
    until(lambda: attempts(client, "delivered") == 12)
    assert len(receiver.got) == 12
    assert {redis.hget(f"scoreserve:job:{job['id']}", "webhook_attempts") for job in jobs} == {b"1"}
