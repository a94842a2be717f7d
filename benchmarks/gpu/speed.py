"""Speed: image-steps a second, of what the device could do, and what the host costs."""

import time
import warnings
from typing import Any

import torch
from torch.nn import functional

from benchmarks.gpu.findings import Findings
from benchmarks.gpu.networks import Subject, flop, free_model, usual_card, usual_model, usual_table
from models.sampling.buckets import CudaGraphs
from models.sampling.chain import Chain
from models.sampling.choice import choose
from models.sampling.engine import Engine
from models.sampling.sample import run
from worker.device.lane import Lane, Part

SLOTS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
PACE_TOLERANCE = 1.3  # the time of a step that is told, over that which it takes
IMAGE_STEPS = 40_000  # that are timed at each number of slots, about


def convolutions(found: Findings) -> dict[str, float]:
    """The most floating-point operations a second that convolutions of this device reach, by type."""
    channels, side, n = (8, 8, 2) if found.small else (256, 32, 256)
    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(n, channels, side, side, device=found.device, dtype=dtype).to(memory_format=layout)
            weights = torch.randn(channels, channels, 3, 3, device=found.device, dtype=dtype)
            weights = weights.to(memory_format=layout)
            seconds = found.seconds(lambda x=x, weights=weights: functional.conv2d(x, weights, padding=1))
            rate = 2 * 9 * channels * channels * side * side * n / seconds
            name = str(dtype).removeprefix("torch.")
            peaks[name] = max(peaks.get(name, 0.0), rate)
    return peaks


def slots(found: Findings) -> dict[str, Any]:
    """Image-steps a second through lanes of 16 to 4,096 slots, beside the peak of convolutions and the host's part."""
    card, table, rows = usual_card(found.small), usual_table(found.small), {}
    operations = flop(Subject(card.name, usual_model(found), 0.5, 2))
    peaks = found.figures.get("convolutions") or convolutions(found)
    for count in (4, 8) if found.small else SLOTS:
        held = torch.cuda.memory_reserved(found.device) if found.cuda else 0
        begun = time.perf_counter()
        lane = Lane(card, usual_model(found), count)
        chosen = time.perf_counter() - begun
        lane.measure()
        recorded = time.perf_counter() - begun - chosen
        engine, n = lane.engine, count * (1 if found.small else max(1, IMAGE_STEPS // (count * len(table))))
        run(engine, [Chain(table, 0, i) for i in range(count)])
        begun = time.perf_counter()
        run(engine, [Chain(table, 1, i) for i in range(n)])
        found.wait()
        seconds = time.perf_counter() - begun
        rate = n * len(table) / seconds
        rows[str(count)] = {
            "execution": str(lane.choice.execution),
            "widths": lane.choice.widths,
            "rows_a_step": engine.rows,
            "image_steps_per_second": rate,
            "images_per_second": n / seconds,
            "share_of_the_convolution_peak": rate * operations / peaks[lane.choice.execution.dtype],
            "host_share": _host_seconds(found, count, engine.rows) * rate / count,
            "seconds_to_choose": chosen,
            "seconds_to_record": recorded,
            "memory_mib": (torch.cuda.memory_reserved(found.device) - held) / 2**20 if found.cuda else None,
        }
        print(count, rows[str(count)], flush=True)
    return {"flop_of_an_image_step": operations, "slots": rows}


def _host_seconds(found: Findings, count: int, rows: int) -> float:
    """Seconds that a row of a full engine takes with a network that costs nothing."""
    card, table = usual_card(found.small), usual_table(found.small)
    engine = Engine(free_model(card.image, found.device), count)
    engine.rows = rows
    run(engine, [Chain(table, 0, i) for i in range(count)])
    begun = time.perf_counter()
    run(engine, [Chain(table, 0, i) for i in range(count)])
    found.wait()
    return (time.perf_counter() - begun) / len(table)


def host(found: Findings) -> dict[str, Any]:
    """What the host does for a shard, and whether a step ever waits for the device."""
    count = 8 if found.small else 256
    lane = Lane(usual_card(found.small), usual_model(found), count)
    lane.measure()
    engine, table = lane.engine, usual_table(found.small)
    chains = [Chain(table, 0, i) for i in range(count)]
    part, microseconds = Part(lane, chains), {}

    def timed(what: str, call: Any) -> None:
        found.wait()
        begun = time.perf_counter()
        call()
        found.wait()
        microseconds[f"{what}, an image"] = 1e6 * (time.perf_counter() - begun) / count

    timed("admit", lambda: engine.admit(chains))
    engine.step()
    if found.cuda:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says that this is a prototype
                torch.cuda.set_sync_debug_mode("error")
            engine.step()
            found.check("a step never waits for the device", True)
        except RuntimeError as error:
            found.check("a step never waits for the device", False, str(error)[:300])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    timed("release", lambda: engine.evict(chains))
    timed("look for faults", part.look_for_faults)
    timed("pixels", part.pixels)
    rows, engine.rows = engine.rows, 1
    fresh = [Chain(table, 1, i) for i in range(count)]
    engine.admit(fresh)
    true = found.seconds(engine.step, least=0.0)
    engine.evict(fresh)
    engine.rows = rows
    said = count / lane.image_steps_per_second
    pace = {"told_milliseconds": 1e3 * said, "true_milliseconds": 1e3 * true}
    if found.cuda:  # a CPU's neighbours may be busy now and idle then
        ok = true / PACE_TOLERANCE < said < PACE_TOLERANCE * true
        found.check("the pace that is told is a step's", ok, str(pace))
    return {"microseconds": microseconds, **pace}


def any_bits(found: Findings) -> dict[str, Any] | None:
    """What a worker chooses that need not be exact, and how much faster that is."""
    if found.small:
        return None
    begun = time.perf_counter()
    choice = choose(usual_model(found), usual_table(False), 256, exact=False)
    seconds = time.perf_counter() - begun
    return {"execution": str(choice.execution), "time_ratios": choice.time_ratios, "seconds_to_choose": seconds}


def recording(found: Findings) -> dict[str, float] | None:
    """How long it takes to record the network once, and to start what is recorded."""
    if not found.cuda:
        return None
    subject = Subject("usual", usual_model(found), 0.5, 256)
    x, conditions = subject.batch(32)
    begun = time.perf_counter()
    replay = CudaGraphs(found.device)(lambda: subject.model.conditioned_score(x, conditions))
    recorded = time.perf_counter() - begun
    replay()
    found.wait()
    begun = time.perf_counter()
    for _ in range(10):
        replay()
    started = (time.perf_counter() - begun) / 10
    found.wait()
    return {"seconds_to_record": recorded, "microseconds_to_start": 1e6 * started}
