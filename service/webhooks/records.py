"""Records: what is written down of a webhook in Redis, sealed with a secret that services alone have.

Redis, its file and its back-ups then tell neither a client's secret nor a token in a URL. Sealed is Fernet: AES-128 in
CBC mode, and HMAC-SHA256 over it (https://github.com/fernet/spec).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SEALED = b"fernet "  # how a record begins that is


class Webhook(BaseModel):
    """What is called once a job has ended.

    Args:
        url: checked.
        secret: that the call is signed with, `whsec_...`; None takes the service's.
    """

    url: str
    secret: str | None = None


class Unreadable(ValueError):
    """A record cannot be read; the message shows nothing of it."""


class Sealed(Unreadable):
    """A record is sealed with a secret that is not here; another service may have it."""


class Seal:
    """Writes and reads records.

    Args:
        secrets: as `check_secret` takes them. The first seals, all of them open; without any, nothing is sealed.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._fernet = _fernet(secrets) if secrets else None

    def close(self, webhook: Webhook) -> str:
        """The record of a webhook."""
        text = webhook.model_dump_json()
        if self._fernet is None:
            return text
        return (SEALED + self._fernet.encrypt(text.encode())).decode()

    def open(self, record: bytes) -> Webhook:
        """The webhook of a record, sealed or not.

        Raises:
            Sealed: it is sealed with another secret.
            Unreadable: it is no record.
        """
        if record.startswith(SEALED):
            if self._fernet is None:
                raise Sealed("what is called is sealed, and this service has no SCORESERVE_SEALING_SECRET")
            from cryptography.fernet import InvalidToken  # noqa: PLC0415 (as below)

            try:
                record = self._fernet.decrypt(record.removeprefix(SEALED))
            except InvalidToken as error:
                raise Sealed("what is called is sealed with a secret that this service does not have") from error
        try:
            return Webhook.model_validate_json(record)
        except ValidationError:
            why = "what is called cannot be read: another release may have written it down"
            raise Unreadable(why) from None  # whose words would show what is in it


def check_secret(text: str) -> None:
    """Whether records can be sealed with it.

    Raises:
        ValueError: they cannot.
    """
    try:
        _fernet([text])
    except ValueError as error:
        raise ValueError("a secret is 32 random bytes in URL-safe base64: 43 characters and =") from error


def _fernet(secrets: Sequence[str]) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 (OpenSSL is loaded where something is sealed)

    return MultiFernet([Fernet(secret) for secret in secrets])
