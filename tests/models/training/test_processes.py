"""Two processes, really started by torchrun."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.store import ModelStore
from models.training.presets import load
from models.training.processes import Processes
from models.training.trainer import CHECKPOINT, Trainer

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
seed = 4
network = {channels = [16], blocks = [1], attention = [true], embedding = 16, groups = 4, head_channels = 16}
"""


def test_a_batch_is_cut_into_parts_without_gap_or_overlap() -> None:
    for n, size in [(8, 1), (8, 3), (9, 2), (3, 3)]:
        parts = [range(n)[Processes(rank, size).part(n)] for rank in range(size)]
        assert [i for part in parts for i in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    preset, data, out = tmp_path / "dots.toml", tmp_path / "dots.npz", tmp_path / "run"
    preset.write_text(PRESET)
    np.savez(data, np.random.default_rng(0).integers(0, 256, (45, 8, 8), dtype=np.uint8))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cli.main"]
    arguments = ["train", str(preset), "--data", str(data), "--out", str(out), "--save-every", "5"]
    done = subprocess.run([*run, *arguments], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
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
