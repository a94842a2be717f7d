"""Faults: what fails must leave the device well, or be told as what it is."""

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.findings import Findings
from benchmarks.gpu.networks import PRESETS, of_preset, usual_card, usual_model, usual_table
from models.sampling.buckets import CudaGraphs
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from worker.device.lane import DeviceFailed, Lane, Part

ALONE_SECONDS = 120  # that a process may take
SHARE_LEFT = 0.6  # of the memory that a batch needs, where there is to be too little
LEFT_MIB = 64  # that a model may leave behind


def failed_capture(found: Findings) -> None:
    """What cannot be recorded is called as it is, and what comes later is recorded as ever."""
    graphs, x = CudaGraphs(found.device), torch.ones(4, device=found.device)
    call = graphs(lambda: x * float(x.sum()))  # the host cannot be told a sum while it records
    assert torch.equal(call(), 4 * x)
    torch.cuda.empty_cache()
    assert torch.equal(graphs(lambda: x + 1)(), x + 1)
    torch.empty(2**28, device=found.device)
    torch.cuda.empty_cache()


def broken_device(found: Findings) -> None:
    """An error that stays ends as DeviceFailed, wherever the host hears of it."""
    card = usual_card(found.small)
    lane = Lane(card, usual_model(found), 16)
    lane.measure()
    part = Part(lane, [Chain(usual_table(found.small), 0, i) for i in range(4)])
    lane.parts.append(part)
    lane.engine.admit(part.chains)
    lane.step()
    torch.zeros(4, device=found.device)[torch.tensor([9], device=found.device)]  # an assertion, heard of later
    try:
        for _ in range(5):
            lane.step()
        lane.diverged()
        part.look_for_faults()
    except DeviceFailed:
        return
    raise AssertionError("no DeviceFailed")


ALONE: dict[str, Callable[[Findings], None]] = {each.__name__: each for each in (failed_capture, broken_device)}


def processes(found: Findings) -> None:
    """Each of what may leave a device broken, in a process of its own."""
    if not found.cuda:
        return
    for name, each in ALONE.items():
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", str(found.device), "--alone", name]
        command += ["--small"] if found.small else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=ALONE_SECONDS, check=False)
        told = (done.stderr.strip().splitlines() or [""])[-1][:300]
        found.check((each.__doc__ or name).partition("\n")[0], done.returncode == 0, told)


def memory(found: Findings) -> dict[str, Any] | None:
    """A model that leaves gives its memory back, and an engine that finds too little of it narrows."""
    if not found.cuda:
        return None
    seen = []
    for _ in range(3):
        lane = Lane(usual_card(found.small), usual_model(found), 16 if found.small else 256)
        lane.measure()
        found.wait()
        held = torch.cuda.memory_reserved(found.device)
        del lane
        gc.collect()
        torch.cuda.empty_cache()
        seen.append((held / 2**20, torch.cuda.memory_reserved(found.device) / 2**20))
    grown = seen[-1][1] - seen[0][1]
    found.check("a model that leaves gives its memory back", grown <= LEFT_MIB, f"MiB, there and gone: {seen}")
    if not found.small:
        _narrows(found)
    return {"mib_loaded_and_gone": seen}


def _narrows(found: Findings) -> None:
    subject = of_preset(PRESETS[0], found.device)
    total = torch.cuda.get_device_properties(found.device).total_memory
    before = torch.cuda.memory_allocated(found.device)
    torch.cuda.reset_peak_memory_stats(found.device)
    subject.model.conditioned_score(*subject.batch(256))
    needed = torch.cuda.max_memory_allocated(found.device) - before
    engine = Engine(subject.model, 256)
    torch.cuda.empty_cache()
    most = (torch.cuda.memory_reserved(found.device) + SHARE_LEFT * needed) / total
    index = torch.cuda.current_device()  # this takes a number, or a device with one
    torch.cuda.set_per_process_memory_fraction(min(1.0, most), index)
    try:
        chains = [Chain(usual_table(False), 0, i) for i in range(256)]
        engine.admit(chains)
        while engine.chains:
            engine.step()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)
    finite = all(chain.x is not None and bool(chain.x.isfinite().all()) for chain in chains)
    what = "where memory does not last the engine narrows and goes on"
    found.check(what, engine.narrowed and finite, f"to a width of {engine.width}")
