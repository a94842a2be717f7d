"""API keys: `ssk_<id>_<secret>`. Redis holds the SHA-256 of the secret: it is random, so no slower hash is needed.

All of it stands in Redis under names that workers may not read.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from redis import Redis

from models.card import ModelName
from worker.queue.priority import Priority

log = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_SECONDS = 1.0  # how long a service goes by a key that it has read
SETTLED_SECONDS = 1.2 * KEEP_SECONDS  # after so long every service has read it anew
KEYS = "scoreserve-keys"  # hash: id -> the key as JSON; not under scoreserve:, so that workers cannot read it
STATE = "scoreserve-keys:state"  # CLOSED since the first key was made; OPEN once an operator has said so
USED = "scoreserve-keys:used"  # hash: id -> when it was used last, seconds since the epoch
CLOSED, OPEN = "closed", "open"
FORM = re.compile(r"ssk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Key(BaseModel):
    """What is kept of a key, and what it may."""

    id: str
    name: str = Field(min_length=1, max_length=100, description="Whose it is, for people.")
    secret_sha256: str
    image_steps: int | None = Field(None, ge=1, description="The most in flight; null for the service's own limit.")
    requests_per_minute: int | None = Field(None, ge=1, description="Null for the service's own limit.")
    created_at: float
    priority: Priority = Field(Priority.NORMAL, description="The most urgent that its jobs may be.")
    models: list[ModelName] | None = Field(None, description="Those that it may ask for; null for all.")
    read_only: bool = Field(False, description="It may look, and neither ask for images nor cancel.")
    operator: bool = Field(False, description="It may what is under /operator.")
    expires_at: float | None = Field(None, description="When it is worth nothing any more.")
    suspended: bool = Field(False, description="It opens nothing for now.")

    @property
    def client(self) -> str:
        """Whose its jobs are, as JobQueue has it."""
        return f"key/{self.id}"

    def opens(self, secret: str) -> bool:
        """Whether the secret is that of this key; takes as long whatever is wrong with it."""
        return hmac.compare_digest(self.secret_sha256, sha256(secret))

    @property
    def closed(self) -> str | None:
        """Why it opens nothing for now; None if it does."""
        if self.suspended:
            return "this key is suspended: ask who runs the service"
        if self.expires_at is not None and time.time() >= self.expires_at:
            return "this key has expired: ask who runs the service for another"
        return None


class KeyNotFound(LookupError):
    """There is no such key."""


class Keys:
    """All keys of one Redis."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def create(
        self, name: str, image_steps: int | None = None, requests_per_minute: int | None = None, **may: Any
    ) -> tuple[Key, str]:
        """Makes a key; returns what is kept, and the key itself, which is not. From then on every request needs one.

        Args:
            name: whose it is.
            image_steps: the most in flight.
            requests_per_minute: likewise.
            may: other fields of `Key`.

        Raises:
            pydantic.ValidationError: the name or a limit is impossible.
        """
        secret = secrets.token_urlsafe(32)
        key = Key(
            id=secrets.token_hex(6),
            name=name,
            secret_sha256=sha256(secret),
            image_steps=image_steps,
            requests_per_minute=requests_per_minute,
            created_at=time.time(),
            **may,
        )
        with self.connection.pipeline() as pipeline:
            pipeline.set(STATE, CLOSED)
            pipeline.hset(KEYS, key.id, key.model_dump_json())
            pipeline.execute()
        return key, f"ssk_{key.id}_{secret}"

    def all(self) -> list[Key]:
        """The keys that can be read, oldest first."""
        found: Any = self.connection.hgetall(KEYS)
        keys = (parse(key_id.decode(errors="replace"), value) for key_id, value in found.items())
        return sorted((key for key in keys if key is not None), key=lambda key: key.created_at)

    def used(self) -> dict[str, float]:
        """When each key was used last, by its id, to the minute."""
        found: Any = self.connection.hgetall(USED)
        return {key_id.decode(): float(at) for key_id, at in found.items()}

    def change(self, key_id: str, **may: Any) -> Key:
        """Changes what a key may.

        Args:
            key_id: of the key.
            may: fields of `Key`, with their new values.

        Raises:
            KeyNotFound: there is none with this id that can be read.
            pydantic.ValidationError: a value is impossible.
        """

        def changed(pipeline: Any) -> Key:
            stored = pipeline.hget(KEYS, key_id)
            key = None if stored is None else parse(key_id, stored)
            if key is None:
                raise KeyNotFound(key_id)
            pipeline.multi()
            key = Key.model_validate(key.model_dump() | may)
            pipeline.hset(KEYS, key_id, key.model_dump_json())
            return key

        return self._watched(changed)

    def revoke(self, key_id: str) -> None:
        """Makes a key worthless. The service stays closed, though it was the last one.

        Raises:
            KeyNotFound: there is none with this id.
        """
        with self.connection.pipeline() as pipeline:
            pipeline.set(STATE, CLOSED)
            pipeline.hdel(KEYS, key_id)
            pipeline.hdel(USED, key_id)
            _, there, _ = pipeline.execute()
        if not there:
            raise KeyNotFound(key_id)

    def open(self) -> bool:
        """Lets everybody ask again, if there are no keys; says whether there are none."""

        def opened(pipeline: Any) -> bool:
            there = pipeline.exists(KEYS)
            pipeline.multi()
            if not there:
                pipeline.set(STATE, OPEN)
            return not there

        return self._watched(opened)

    def _watched(self, commands: Callable[[Any], T]) -> T:
        """What a function returns, whose commands are carried out if no key has changed meanwhile."""
        transaction: Any = self.connection.transaction
        done: T = transaction(commands, KEYS, value_from_callable=True)
        return done

    @property
    def closed(self) -> bool:
        """Whether there are keys, or were."""
        return bool(self.connection.exists(KEYS)) or self.connection.get(STATE) == CLOSED.encode()


def parse(key_id: str, stored: bytes) -> Key | None:
    """A key, from what Redis has under its id; None if that cannot be read, or is another's."""
    try:
        key = Key.model_validate_json(stored)
    except ValidationError as error:
        log.warning("key %.12s cannot be read, and opens nothing: %d faults", key_id, error.error_count())
        return None
    return key if key.id == key_id else None


def split(presented: str) -> tuple[str, str] | None:
    """The id and the secret of a key that was presented; None if it is none."""
    form = FORM.fullmatch(presented)
    return None if form is None else (form[1], form[2])


def masked(text: str) -> str:
    """A text in which a key, or what was meant for one, is not shown beyond its id."""
    return re.sub(r"(ssk_[0-9A-Za-z]{0,12})\S*", r"\1_***", text)


def sha256(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
