"""Pictures in terminals that can show them: kitty's graphics, iTerm2's inline images, and sixels."""

import base64
import io
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

import typer

ANSWER_SECONDS = 0.3
CHUNK = 4096  # of base64, the most that kitty takes at once
KITTY = ("xterm-kitty", "xterm-ghostty")
ITERM2 = ("iTerm.app", "WezTerm", "mintty")
ATTRIBUTES = b"\x1b[c"  # "what are you?" (DA1); the answer is ESC [ ? numbers c, and 4 among them is sixels


class Protocol(StrEnum):
    """How a terminal is told of a picture."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"


def protocol() -> Protocol | None:
    """What the terminal on standard output speaks; None if it is no terminal, or one without pictures."""
    return recognise(os.environ, ask) if sys.stdout.isatty() else None


def recognise(environment: Mapping[str, str], ask: Callable[[], bytes]) -> Protocol | None:
    """The protocol by what the environment says of the terminal, or else by what the terminal answers.

    Args:
        environment: variables.
        ask: returns the terminal's answer to a question for its attributes.
    """
    name, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    # Inside tmux and screen the environment is that of the terminal outside, which does not see what is written.
    if not ("TMUX" in environment or name.startswith(("screen", "tmux"))):
        if name in KITTY or "KITTY_WINDOW_ID" in environment or "KONSOLE_VERSION" in environment:
            return Protocol.KITTY
        if program in ITERM2 or environment.get("LC_TERMINAL") == "iTerm2":
            return Protocol.ITERM2
    if name in ("", "dumb", "linux"):
        return None
    attributes = ask().rpartition(b"\x1b[?")[2].removesuffix(b"c").split(b";")
    return Protocol.SIXEL if b"4" in attributes[1:] else None


def ask() -> bytes:
    """The terminal's answer to ATTRIBUTES; empty if there is no terminal, or none that answers soon."""
    try:
        import termios  # noqa: PLC0415 (not on every system)
        import tty  # noqa: PLC0415

        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError):
        return b""
    try:
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return b""  # in the background: touching the terminal would stop the process
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor, termios.TCSANOW)
            os.write(descriptor, ATTRIBUTES)
            return _answer(descriptor)
        finally:
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
    except (OSError, termios.error):
        return b""
    finally:
        os.close(descriptor)


def show(png: bytes, how: Protocol) -> None:
    """Writes a picture to standard output."""
    typer.echo({Protocol.KITTY: kitty, Protocol.ITERM2: iterm2, Protocol.SIXEL: sixel}[how](png))


def kitty(png: bytes) -> str:
    """The picture in kitty's graphics protocol (`a=T`: transmit and show, `f=100`: PNG, `q=2`: no answer)."""
    data = base64.b64encode(png).decode()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    more = [f"m={int(number < len(chunks) - 1)}" for number in range(len(chunks))]
    more[0] = f"a=T,f=100,q=2,{more[0]}"
    return "".join(f"\x1b_G{control};{chunk}\x1b\\" for control, chunk in zip(more, chunks, strict=True))


def iterm2(png: bytes) -> str:
    """The picture as an inline image of iTerm2."""
    return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{base64.b64encode(png).decode()}\x07"


def sixel(png: bytes) -> str:
    """The picture in sixels, 256 colours: bands of six rows, in each a line of six-pixel columns for every colour."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    with Image.open(io.BytesIO(png)) as picture:
        image = picture.convert("RGB").quantize(256)
    pixels, palette = np.asarray(image), np.array(image.getpalette()).reshape(-1, 3)
    height, width = pixels.shape
    used = np.unique(pixels)
    colours = [f"#{number};2;" + ";".join(str(round(part * 100 / 255)) for part in palette[number]) for number in used]
    bands = []
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        bits = (1 << np.arange(len(band)))[:, None]
        lines = [f"#{number}{_runs(((band == number) * bits).sum(0))}" for number in np.unique(band)]
        bands.append("$".join(lines))
    return f'\x1bPq"1;1;{width};{height}{"".join(colours)}{"-".join(bands)}-\x1b\\'


def _runs(columns: "object") -> str:
    """Six-pixel columns as characters; four and more of the same are counted."""
    import numpy as np  # noqa: PLC0415

    values = np.asarray(columns)
    edges = np.flatnonzero(np.diff(values)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(values)]
    runs = ((chr(63 + int(values[start])), end - start) for start, end in zip(starts, ends, strict=True))
    return "".join(f"!{length}{character}" if length > 3 else character * length for character, length in runs)


def _answer(descriptor: int) -> bytes:
    answer, deadline = b"", time.monotonic() + ANSWER_SECONDS
    while not answer.endswith(b"c"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return b""
        answer += os.read(descriptor, 64)
    return answer
