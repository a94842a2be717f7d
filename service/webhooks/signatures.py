"""Signatures of webhooks, as Standard Webhooks 1.0 has them."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence


def parse_secret(text: str) -> bytes:
    """The key that `whsec_` and base64 stand for.

    Raises:
        ValueError: it is none, or not of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a secret is whsec_ and 24 to 64 bytes in base64") from error
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("a secret is whsec_ and 24 to 64 bytes in base64")
    return key


def sign(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: a signature for each secret (Standard Webhooks 1.0, "Signature scheme")."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
