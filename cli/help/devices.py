"""The option --device of commands that compute, and one clear line where there is no such device."""

import re
from typing import Annotated

import typer

KNOWN = re.compile(r"cpu|cuda(:\d+)?")


def _there(name: str) -> str:
    """The device, if it is one; torch, which takes its time, is asked about GPUs alone."""
    if not KNOWN.fullmatch(name):
        raise typer.BadParameter(f"there is no device {name}; allowed: cpu, cuda, or cuda:1 for the second GPU")
    if name == "cpu":
        return name
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return name  # the command says what to install
    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        raise typer.BadParameter(
            f"torch finds no {name} here; there is: {there} (`scoreserve doctor` says what may be wrong)"
        )
    return name


Device = Annotated[str, typer.Option(help="cpu, cuda, or cuda:1 for the second GPU.", callback=_there)]
