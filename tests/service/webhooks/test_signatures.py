"""Signatures of webhooks: those of Standard Webhooks."""

import base64
import hashlib
import hmac

from service.webhooks.signatures import parse_secret, sign

KEY = bytes(range(32))


def test_a_signature_is_that_of_the_reference_libraries() -> None:
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_digest_is_sha256() -> None:
    assert (
        sign([KEY], "msg_1", 5, b"{}")
        == "v1," + base64.b64encode(hmac.new(KEY, b"msg_1.5.{}", hashlib.sha256).digest()).decode()
    )
