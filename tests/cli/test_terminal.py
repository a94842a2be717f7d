"""Pictures in terminals: which protocol, and whether what is written is the picture."""

import base64
import io
import os
import re
import select
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.terminal import Protocol, iterm2, kitty, recognise, sixel


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("environment", "answer", "expected"),
    [
        ({"TERM": "xterm-kitty"}, b"", Protocol.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, b"", Protocol.KITTY),
        ({"TERM": "xterm-ghostty"}, b"", Protocol.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, b"", Protocol.ITERM2),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, b"", Protocol.ITERM2),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, b"", Protocol.ITERM2),
        ({"TERM": "xterm-256color"}, b"\x1b[?62;4;22c", Protocol.SIXEL),
        ({"TERM": "xterm-256color"}, b"\x1b[?4;22c", None),
        ({"TERM": "xterm-256color"}, b"\x1b[?62;14;22c", None),
        ({"TERM": "xterm-256color"}, b"", None),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x", "KITTY_WINDOW_ID": "1"}, b"\x1b[?1;2;4c", Protocol.SIXEL),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, b"\x1b[?1;2c", None),
        ({"TERM": "dumb"}, b"\x1b[?62;4c", None),
        ({}, b"\x1b[?62;4c", None),
    ],
)
def test_which_protocol(environment: dict[str, str], answer: bytes, expected: Protocol | None) -> None:
    assert recognise(environment, lambda: answer) == expected


@pytest.mark.parametrize("size", [1, 3000, 50_000])
def test_kitty_gets_the_file_in_pieces(size: int) -> None:
    data = np.random.default_rng(0).bytes(size)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty(data))
    assert base64.b64decode("".join(piece for _, piece in pieces)) == data
    assert all(len(piece) <= 4096 for _, piece in pieces)
    controls = [control for control, _ in pieces]
    assert controls[0].startswith("a=T,f=100,q=2,")
    assert [control[-3:] for control in controls] == ["m=1"] * (len(pieces) - 1) + ["m=0"]


def test_iterm2_gets_the_file() -> None:
    assert iterm2(b"abc") == "\x1b]1337;File=inline=1;size=3;preserveAspectRatio=1:YWJj\x07"


def draw(text: str) -> np.ndarray:
    """What a terminal draws of sixels: [height, width, 3] in percent."""
    match = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', text, re.DOTALL)
    assert match is not None
    width, height = int(match[1]), int(match[2])
    picture, colours = np.full((-(-height // 6) * 6, width, 3), -1.0), {}
    x = y = 0
    colour = ""
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|\$|-", match[3]):
        if token[0] == "#" and ";" in token:
            number, _, *parts = token[1:].split(";")
            colours[number] = [int(part) for part in parts]
        elif token[0] == "#":
            colour = token[1:]
        elif token == "$":
            x = 0
        elif token == "-":
            x, y = 0, y + 6
        else:
            length = int(token[1:-1]) if token[0] == "!" else 1
            for bit in range(6):
                if (ord(token[-1]) - 63) >> bit & 1:
                    picture[y + bit, x : x + length] = colours[colour]
            x += length
    assert (picture[height:] == -1).all()
    return picture[:height]


@pytest.mark.parametrize("shape", [(1, 1), (6, 5), (20, 33), (13, 9, 3)])
def test_sixels_are_the_picture(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 8, shape, dtype=np.uint8) // 3 * np.uint8(100)
    pixels[0] = 255
    colours = pixels if len(shape) == 3 else np.repeat(pixels[:, :, None], 3, 2)
    assert np.abs(draw(sixel(png(pixels))) - colours * (100 / 255)).max() <= 1.5


ASKING = "import sys; from cli.terminal import ask, protocol; print(protocol()); print(ask(), 'END')"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
@pytest.mark.parametrize(("answer", "said"), [(b"\x1b[?62;4c", "sixel"), (b"", "None")])
def test_a_terminal_is_asked_and_left_as_it_was(answer: bytes, said: str) -> None:
    import termios  # noqa: PLC0415

    outer, inner = os.openpty()
    before = termios.tcgetattr(inner)
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("TMUX", "KITTY_WINDOW_ID", "KONSOLE_VERSION", "TERM_PROGRAM", "LC_TERMINAL"):
        environment.pop(name, None)
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {ASKING}"
    arguments = [sys.executable, "-c", code]
    with subprocess.Popen(arguments, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True):
        seen = b""
        while b"END" not in seen and select.select([outer], [], [], 30)[0]:
            seen += os.read(outer, 1024)
            if seen.endswith(b"\x1b[c"):
                os.write(outer, answer)
                seen += b"|"
    assert f"{said}".encode() in seen, seen
    assert repr(answer).encode() in seen
    assert termios.tcgetattr(inner) == before
    os.close(outer)
    os.close(inner)
