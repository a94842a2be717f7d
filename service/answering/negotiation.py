"""Which of several media types a client likes best (RFC 9110, 12.5.1)."""

import re
from collections.abc import Mapping


def liked(accept: str, offers: Mapping[str, str]) -> str | None:
    """The first of our media types that a client likes best; None if it takes none.

    Args:
        accept: its header of that name.
        offers: media types, and ranges of such, with what of ours each means.
    """
    found: list[tuple[float, int, str]] = []
    for position, entry in enumerate(accept.split(",")):
        name, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weight = float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0
        if name.lower() in offers and weight > 0:
            found.append((-weight, position, offers[name.lower()]))
    return min(found)[2] if found else None
