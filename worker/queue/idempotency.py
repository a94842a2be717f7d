"""Idempotency: a request that a client sends again under the same key is accepted once. Torch-free."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Once:
    """A request that is to be accepted once.

    Args:
        name: of the client's key; two clients never share one.
        fingerprint: of the request; one with the same name and another fingerprint is another request.
    """

    name: str
    fingerprint: str

    @classmethod
    def of(cls, client: str, key: str, *parts: bytes) -> "Once":
        """The request that consists of `parts`, under a client's key."""
        digests = b"".join(hashlib.sha256(part).digest() for part in parts)
        name = hashlib.sha256(f"{client}\0{key}".encode()).hexdigest()
        return cls(name, hashlib.sha256(digests).hexdigest())

    @property
    def redis_key(self) -> str:
        """String: the id of the job that was accepted, and the fingerprint. It ends with the job."""
        return f"scoreserve:once:{self.name}"


class AnotherRequest(ValueError):
    """Under this key the client has sent another request before."""


class AcceptedBefore(Exception):
    """The request was accepted before, as the job `job_id`."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id
