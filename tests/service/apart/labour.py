"""What a process of service.apart does in tests."""

import os
import time
from collections.abc import Iterator
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
    return {"pid": os.getpid(), "nice": os.nice(0), "processors": sorted(os.sched_getaffinity(0))}, data[::-1]
