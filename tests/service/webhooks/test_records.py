"""What is written down of webhooks: sealed, so that Redis tells nothing of it."""

import base64
import json

import pytest
from pydantic import ValidationError
from redis import Redis

from service.settings import ServiceSettings
from service.webhooks.records import Seal, Unreadable, Webhook

SECRETS = [base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in range(3)]
WEBHOOK = Webhook(url="https://example.com/hook?token=hidden", secret="whsec_hidden")


def test_what_is_sealed_is_opened_and_tells_nothing() -> None:
    seal = Seal(SECRETS[:1])
    record = seal.close(WEBHOOK)
    assert "hidden" not in record
    assert "example" not in record
    assert seal.close(WEBHOOK) != record, "the same twice is not known for the same"
    assert seal.open(record.encode()) == WEBHOOK


def test_while_a_secret_replaces_another_both_open() -> None:
    before, both, after = Seal(SECRETS[:1]), Seal([SECRETS[1], SECRETS[0]]), Seal(SECRETS[1:2])
    assert both.open(before.close(WEBHOOK).encode()) == WEBHOOK
    assert after.open(both.close(WEBHOOK).encode()) == WEBHOOK
    with pytest.raises(Unreadable, match="a secret that this service does not have"):
        after.open(before.close(WEBHOOK).encode())


def test_what_a_service_without_a_secret_has_written_is_still_read() -> None:
    record = Seal([]).close(WEBHOOK)
    assert json.loads(record)["secret"] == "whsec_hidden"
    assert Seal(SECRETS).open(record.encode()) == WEBHOOK
    with pytest.raises(Unreadable, match="SCORESERVE_SEALING_SECRET"):
        Seal([]).open(Seal(SECRETS).close(WEBHOOK).encode())


@pytest.mark.parametrize("record", [b"", b"{", b'{"secret": "whsec_hidden"}', b"fernet ", b"fernet hidden", b"\xff"])
def test_what_is_no_record_is_told_without_what_is_in_it(record: bytes) -> None:
    with pytest.raises(Unreadable) as raised:
        Seal(SECRETS).open(record)
    assert "hidden" not in str(raised.value)
    assert raised.value.__suppress_context__ or "hidden" not in str(raised.value.__cause__)


@pytest.mark.parametrize("wrong", ["hidden", f"{SECRETS[0]} hidden", SECRETS[0][:-2], "A" + SECRETS[0]])
def test_a_secret_that_is_none_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(ValidationError, match="URL-safe base64") as raised:
        ServiceSettings(sealing_secret=wrong)
    assert "hidden" not in raised.value.errors()[0]["msg"]
    assert "hidden" not in repr(ServiceSettings.model_construct(sealing_secret=wrong))


def test_redis_has_nothing_in_clear_of_an_accepted_webhook(new_client, settings: ServiceSettings, redis: Redis) -> None:
    client = new_client(settings.model_copy(update={"sealing_secret": SECRETS[0]}))
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    job = client.submit(webhook={"url": "https://93.184.216.34/hook?token=hidden", "secret": secret})["id"]
    record = redis.hget(f"scoreserve:job:{job}", "webhook")
    assert record.startswith(b"fernet ")
    stored = b"".join(redis.dump(key) for key in redis.keys("*"))
    assert b"hidden" not in stored
    assert secret.encode() not in stored
