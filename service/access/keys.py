"""API keys: `ssk_<id>_<secret>`. Redis holds the SHA-256 of the secret: it is random, so no slower hash is needed."""

import hashlib
import hmac
import re
import secrets
import time
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis

KEEP_SECONDS = 1.0  # how long a service goes by the keys that it has read
KEYS = "scoreserve-keys"  # hash: id -> the key as JSON; not under scoreserve:, so that workers cannot read it
FORM = re.compile(r"ssk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOTHING = hashlib.sha256(b"").hexdigest()


class Key(BaseModel):
    """What is kept of a key."""

    id: str
    name: str = Field(min_length=1, max_length=100, description="Whose it is, for people.")
    secret_sha256: str
    image_steps: int | None = Field(ge=1, description="The most in flight; null for the service's own limit.")
    requests_per_minute: int | None = Field(ge=1, description="Null for the service's own limit.")
    created_at: float

    def opens(self, secret: str) -> bool:
        """Whether the secret is that of this key; takes as long whatever is wrong with it."""
        return hmac.compare_digest(self.secret_sha256, _sha256(secret))


class KeyNotFound(LookupError):
    """There is no such key."""


class Keys:
    """All keys of one Redis."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def create(self, name: str, image_steps: int | None, requests_per_minute: int | None) -> tuple[Key, str]:
        """Makes a key; returns what is kept, and the key itself, which is not.

        Raises:
            pydantic.ValidationError: the name or a limit is impossible.
        """
        secret = secrets.token_urlsafe(32)
        key = Key(
            id=secrets.token_hex(6),
            name=name,
            secret_sha256=_sha256(secret),
            image_steps=image_steps,
            requests_per_minute=requests_per_minute,
            created_at=time.time(),
        )
        self.connection.hset(KEYS, key.id, key.model_dump_json())
        return key, f"ssk_{key.id}_{secret}"

    def all(self) -> list[Key]:
        """The keys, oldest first."""
        found: Any = self.connection.hgetall(KEYS)
        return sorted(parse(found).values(), key=lambda key: key.created_at)

    def revoke(self, key_id: str) -> None:
        """Makes a key worthless.

        Raises:
            KeyNotFound: there is none with this id.
        """
        if not self.connection.hdel(KEYS, key_id):
            raise KeyNotFound(key_id)


def parse(stored: dict[bytes, bytes]) -> dict[str, Key]:
    """Keys by id, from what Redis has."""
    return {key_id.decode(): Key.model_validate_json(value) for key_id, value in stored.items()}


def matching(keys: dict[str, Key], presented: str) -> Key | None:
    """The key that was presented, if it is one of these."""
    form = FORM.fullmatch(presented)
    key_id, secret = form.groups() if form else ("", "")
    key = keys.get(key_id)
    if key is None:
        hmac.compare_digest(_NOTHING, _sha256(secret))  # so that the time tells no ids
        return None
    return key if key.opens(secret) else None


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
