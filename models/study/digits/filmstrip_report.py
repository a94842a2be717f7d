"""The picture and the table of the filmstrip."""

from typing import Any

import numpy as np

from models.study.digits.filmstrip import Found
from models.study.digits.strips import Strip, strips_png
from models.study.report import Section, Table

SHOWN = 3  # chains


def sections(found: Found) -> list[Section]:
    """What the page shows."""
    columns = ["evaluations", "sigma", "recognised as it is", "recognised denoised", "of its last class", "off its end"]
    rows = [
        [
            f"{m.evaluations}",
            f"{m.sigma:.2g}",
            f"{m.recognised:.0%}",
            f"{m.recognised_denoised:.0%}",
            f"{m.decided:.0%}",
            f"{m.off:.3f}",
        ]
        for m in found.moments
    ]
    caption = f"{found.model}, {found.sampler}: chains on their way, and what is expected behind the noise"
    return [Section("filmstrip", caption, filmstrip_png(found), [Table(columns, rows)])]


def figures(found: Found) -> dict[str, Any]:
    """The numbers of the study, for a JSON file."""
    names = ("evaluations", "sigma", "recognised", "recognised_denoised", "decided", "off")
    return {
        "model": found.model,
        "sampler": found.sampler,
        "chains": found.chains,
        "moments": [{name: getattr(m, name) for name in names} for m in found.moments],
    }


def filmstrip_png(found: Found) -> bytes:
    """Each chain from its first moment to its last, and below it what the model expects behind the noise."""
    strips = []
    for i in range(min(SHOWN, found.chains)):
        strips += [
            Strip("chain", np.stack([m.noisy[i] for m in found.moments])),
            Strip("denoised", np.stack([m.denoised[i] for m in found.moments])),
        ]
    return strips_png(strips, [f"{m.sigma:.2g}" for m in found.moments])
