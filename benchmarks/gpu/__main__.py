"""All that has to be seen on a GPU: `python -m benchmarks.gpu`, about eight minutes on an H100 or H200.

It needs torch, numpy, Pillow, safetensors and pydantic, and no network. What has to be true is checked: the device's
noise against the host's, an image's bits at all widths and in all company, graphs against eager, memory that comes
back, errors that are told, a step that never waits. What is found out besides: image-steps a second at 16 to 4,096
slots, as a share of what convolutions reach there; the host's part; which widths have the same bits in which execution,
and how fast each is; how long recording takes; a training step.

Each subject stands alone: what one raises is a check that failed, and the next goes on. The record is written after
each, to a file named after the device; the exit code is 1 if a check failed. `--device cpu --small` goes all the way in
seconds.
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import bits, faults, speed
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.training import training
from models.environment import describe, device_name, environment
from models.files import write_json

RESULTS = Path(__file__).parents[1] / "results"


def device(found: Findings) -> dict[str, Any] | None:
    """What the device and its libraries are."""
    if not found.cuda:
        return None
    properties = torch.cuda.get_device_properties(found.device)
    free, total = torch.cuda.mem_get_info(str(found.device))
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "architectures": torch.cuda.get_arch_list(),
        "free_mib": free / 2**20,
        "total_mib": total / 2**20,
    }


SUBJECTS = (
    device,
    bits.normal_noise,
    bits.promise,
    speed.convolutions,
    speed.slots,
    speed.host,
    speed.recording,
    faults.processes,
    faults.memory,
    bits.widths,
    training,
    speed.any_bits,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--small", action="store_true", help="a tiny network and few widths: seconds, on a CPU too")
    parser.add_argument("--only", default="", help="names of subjects, with commas")
    parser.add_argument("--out", type=Path, help="directory of the record; benchmarks/results unless --small")
    parser.add_argument("--alone", choices=sorted(faults.ALONE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.backends.cudnn.deterministic = True  # as a worker and a training job have it
    torch.set_num_threads(1)  # as a worker has it
    found = Findings(torch.device(arguments.device), arguments.small)
    if arguments.alone:
        faults.ALONE[arguments.alone](found)
        sys.stdout.flush()
        os._exit(0)  # with a device that has failed, what torch does at its end could fail too
    command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
    found.figures["environment"] = machine = environment(command, arguments.device)
    print(describe(machine))
    out = arguments.out or (None if arguments.small else RESULTS)
    wanted = [name for name in arguments.only.split(",") if name]
    for subject in SUBJECTS:
        if wanted and subject.__name__ not in wanted:
            continue
        found.examine(subject)
        if out is not None:
            name = re.sub(r"[^a-z0-9]+", "-", device_name(found.device).lower()).strip("-")
            write_json(out / f"gpu-{name}.json", found.record())
    print(f"\n{len(found.checks)} checks, {len(found.failed)} failed{': ' if found.failed else ''}", end="")
    print("; ".join(found.failed))
    return bool(found.failed)


if __name__ == "__main__":
    sys.exit(main())
