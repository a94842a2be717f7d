"""Pictures of rows of images, each with its name."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.images import Pixels, grid
from models.study.pictures import figure, panels, png

INCH, LETTER = 0.62, 0.08  # of an image, and of a letter of the names beside it
PADDING = 1


@dataclass(frozen=True)
class Strip:
    """A row of images uint8 [n, h, w, c], and what they are."""

    name: str
    images: Pixels


def strips_png(strips: Sequence[Strip], columns: Sequence[str] = ()) -> bytes:
    """The rows below each other, as a PNG file.

    Args:
        strips: of equally many images.
        columns: what is written above each column; nothing without.
    """
    count = len(strips[0].images)
    letters = max(len(line) for strip in strips for line in strip.name.splitlines())
    drawn = figure(0.2 + LETTER * letters + INCH * count, INCH * len(strips) + 0.3 * bool(columns))
    for i, (panel, strip) in enumerate(zip(panels(drawn, len(strips), 1), strips, strict=True)):
        row = grid(strip.images, columns=count, padding=PADDING, background=255)
        shown = row.squeeze(-1) if row.shape[-1] == 1 else row
        panel.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")  # noise that is smoothed is large
        panel.set_frame_on(False)
        panel.set_yticks([])
        panel.set_ylabel(strip.name, rotation=0, ha="right", va="center", fontsize=9)
        width = row.shape[1] / count
        panel.set_xticks([(k + 0.5) * width for k in range(count)], columns if i == 0 and columns else [""] * count)
        panel.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=9)
    return png(drawn)
