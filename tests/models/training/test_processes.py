"""Two processes: started by torchrun, or as it starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.store import ModelStore
from models.training.checkpoint import CHECKPOINT
from models.training.presets import load
from models.training.processes import Processes
from models.training.trainer import Trainer
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
PRESET = """
[model]
name = "dots"
sigma_min = 0.02
sigma_max = 5.0

[image]
channels = 1
height = 8
width = 8

[training]
batch = 9
epochs = 2
optimizer = "muon"
warmup_steps = 2
flip = true
precision = "float32"
seed = 4
network = {channels = [16], blocks = [1], attention = [true], embedding = 16, groups = 4, head_channels = 16}
"""
THREADS = """
import os, sys
from pathlib import Path

from models.training.job import TrainingJob, TrainingStopped

stop, preset, data, out = sys.argv[1:]
job = TrainingJob(
    preset=preset, data=data, out=out, store=out, overrides={}, device="cpu", save_every=5, grid_every=5, command=""
)
try:
    job.run(lambda trainer: None, lambda trainer, loss: None, lambda: stop == "stopped")
except TrainingStopped as stopped:
    kept = stopped
    print(f"{stopped}\\n", end="")
threads = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
print(f"left by {os.environ['RANK']}: {[name for name in threads if 'gloo' in name]}\\n", end="")
"""


def test_a_batch_is_cut_into_parts_without_gap_or_overlap() -> None:
    for n, size in [(8, 1), (8, 3), (9, 2), (3, 3)]:
        parts = [range(n)[Processes(rank, size).part(n)] for rank in range(size)]
        assert [i for part in parts for i in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    preset, data, out = dots(tmp_path)
    done = torchrun("-m", "cli.main", "train", preset, "--data", data, "--out", out, "--save-every", 5)
    lines = [line for line in done.stderr.splitlines() if line.startswith(("step", "published"))]
    assert [line.split("  ")[0] for line in lines[:2]] == ["step 5/10", "step 10/10"]
    assert lines[2:] == [f"published dots version 1 in {out}/models/dots/1"], "the first process alone speaks"
    assert ModelStore(out / "models").versions("dots") == [1]
    assert json.loads((out / "run.json").read_text())["steps"] == 10

    images = torch.from_numpy(np.load(data)["arr_0"])[:, None]
    alone = Trainer(images, load(str(preset)).training, tmp_path / "never written")
    alone.train(lambda *_: None)
    state = torch.load(out / CHECKPOINT, weights_only=True)
    assert state["losses"].tolist() == pytest.approx(alone.losses, rel=1e-4)
    assert len(set(alone.losses)) == 10


@pytest.mark.parametrize(("end", "said"), [("done", []), ("stopped", ["stopped after step 1 of 10"])])
def test_no_thread_of_a_group_is_left_to_drop_a_tensor_while_the_interpreter_ends(
    end: str, said: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(THREADS)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), end, *map(str, dots(tmp_path))]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **address, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE
        )
        for rank in "01"
    ]
    lines = [line for process in both for line in process.communicate(timeout=120)[0].decode().splitlines()]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(lines) == ["left by 0: []", "left by 1: []", *said]


def dots(directory: Path) -> tuple[Path, Path, Path]:
    """A preset, its data, and where the run may write."""
    preset, data = directory / "dots.toml", directory / "dots.npz"
    preset.write_text(PRESET)
    np.savez(data, np.random.default_rng(0).integers(0, 256, (45, 8, 8), dtype=np.uint8))
    return preset, data, directory / "run"


def torchrun(*arguments: object) -> "subprocess.CompletedProcess[str]":
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, arguments)]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, check=False, cwd=ROOT, env=path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done
