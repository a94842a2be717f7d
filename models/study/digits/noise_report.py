"""The picture and the table of the study of noise at many magnitudes."""

from typing import Any

import numpy as np

from models.study.digits.noise import Found
from models.study.digits.strips import Strip, strips_png
from models.study.report import Section, Table


def sections(found: Found) -> list[Section]:
    """What the page shows."""
    columns = ["sigma", "named rightly as it is", "named rightly denoised", "denoised, off by"]
    rows = [["0", f"{found.named:.1%}", "", ""]]
    rows += [
        [f"{level.sigma:.3g}", f"{level.named:.1%}", f"{level.named_denoised:.1%}", f"{level.off:.3f}"]
        for level in reversed(found.levels)
    ]
    rows.append(["the mean of all training images", "", "", f"{found.spread:.3f}"])
    caption = f"Test images noised at {len(found.levels)} levels, and what {found.model} expects behind the noise"
    return [Section("noise", caption, noise_png(found), [Table(columns, rows)])]


def figures(found: Found) -> dict[str, Any]:
    """The numbers of the study, for a JSON file."""
    return {
        "model": found.model,
        "images": found.images,
        "named": found.named,
        "spread": found.spread,
        "levels": [
            {"sigma": level.sigma, "named": level.named, "named_denoised": level.named_denoised, "off": level.off}
            for level in found.levels
        ],
    }


def noise_png(found: Found) -> bytes:
    """Each image from without noise to the largest, and below it what is expected behind the noise."""
    levels = found.levels[::-1]
    strips = []
    for i, clean in enumerate(found.clean):
        strips += [
            Strip("noised", np.stack([clean, *(level.noised[i] for level in levels)])),
            Strip("denoised", np.stack([clean, *(level.denoised[i] for level in levels)])),
        ]
    return strips_png(strips, ["0", *(f"{level.sigma:.2g}" for level in levels)])
