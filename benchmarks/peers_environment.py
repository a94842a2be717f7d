"""An environment of its own for LitServe and mosec, made once, in which what the project has is seen too."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from benchmarks.system import ROOT

PACKAGES = "litserve==0.2.19", "mosec==0.9.8"


def default_place() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "scoreserve" / "-".join(["peers", *(package.partition("==")[2] for package in PACKAGES)])


def python(place: Path) -> Path:
    """The Python of the environment, which is made if it is not there.

    The project's packages are on its path, by a .pth file, so that torch is the very same; the peers and what they
    need besides are its own.

    Raises:
        subprocess.CalledProcessError: they cannot be installed.
    """
    out = place / "bin" / "python"
    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        own = subprocess.run(
            [out, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        (Path(own) / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [out, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", *PACKAGES], check=True)
        (place / "ready").touch()
    return out


if __name__ == "__main__":
    print(python(default_place()), file=sys.stdout)
