"""What a process of service.apart does in tests."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def work(asked: dict[str, Any], pieces: Iterator[bytes]) -> tuple[dict[str, Any], bytes]:
    """As `how` says."""
    data = b"".join(pieces)
    match asked["how"]:
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "fill":
            return {}, bytes(2**30)
        case "die":
            os._exit(3)
        case "secrets":
            return {"environment": sorted(os.environ)}, b""
    group = Path("/proc/self/autogroup")
    priority = {"nice": os.nice(0), "session": os.getsid(0), "processors": sorted(os.sched_getaffinity(0))}
    with suppress(OSError):  # where there is none
        priority["group"] = group.read_text()
    return {"pid": os.getpid(), **priority}, data[::-1]
