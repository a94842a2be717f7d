"""Where and how figures were measured: what stands beside them, so that they can be measured again."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def environment(command: str, device: str = "cpu") -> dict[str, Any]:
    """Date, command, device, threads, load average and versions of this run.

    Args:
        command: what was run.
        device: torch device name.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "scoreserve": _own_version(),
    }


def _own_version() -> str:
    """That of scoreserve, which may be run from its files alone."""
    try:
        return version("scoreserve")
    except PackageNotFoundError:
        return "not installed"


def describe(machine: dict[str, Any]) -> str:
    """The environment in one line."""
    return (
        f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load average {machine['load_average_at_start']:g} at the start, torch {machine['torch']}"
    )


def device_name(device: str | torch.device) -> str:
    """What a torch device is sold as."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
