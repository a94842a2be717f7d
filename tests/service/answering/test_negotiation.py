"""What of ours a client likes best."""

import pytest

from service.answering.negotiation import liked

OFFERS = {"image/png": "png", "image/*": "png", "*/*": "json", "application/json": "json"}


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        ("image/png", "png"),
        ("IMAGE/PNG", "png"),
        ("application/json, image/png", "json"),
        ("application/json;q=0.5, image/png", "png"),
        ("application/json; charset=utf-8; q=0.9,image/*;q=0.91", "png"),
        ("text/html, */*;q=0.1", "json"),
        ("image/png;q=nonsense, application/json;q=0.1", "json"),
        ("image/png;q=0", None),
        ("text/html", None),
        ("", None),
    ],
)
def test_the_best_of_ours(accept: str, found: str | None) -> None:
    assert liked(accept, OFFERS) == found
