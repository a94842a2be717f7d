"""Bits: which are the host's, which change with the width of a batch, and whether an image keeps its own."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.findings import Findings
from benchmarks.gpu.networks import Subject, subjects, usual_model, usual_table
from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.sampling import noise
from models.sampling.buckets import CudaGraphs, bucket_widths, pinned_width
from models.sampling.chain import Chain
from models.sampling.choice import Choice, choose
from models.sampling.engine import Engine
from models.sampling.execution import Execution
from models.sampling.projections import Unmasked
from models.sampling.sample import run, to_pixels
from models.schedules import geometric, karras
from models.score import ScoreModel

TWO_ULP = 2.5e-7  # of float32, as a share of a number
GREY_STEPS = 12  # by which an image of a GPU may differ from a CPU's, which no eye sees
EXECUTIONS = [Execution(mode, dtype) for dtype in ("float32", "bfloat16") for mode in ("eager", "channels_last")]
KINDS = [
    Euler.table(karras(10, 0.01, 9, 7)),
    Heun.table(karras(10, 0.01, 5, 7)),
    Ancestral.table(karras(10, 0.01, 8, 7)),
    AnnealedLangevin.table(geometric(5, 0.03, 6), 2, 1e-4, True, 5.0),
    AdamsBashforth.table(karras(10, 0.01, 8, 7)),
    Dpmpp2mSde.table(karras(10, 0.01, 8, 7)),
]


def normal_noise(found: Findings) -> dict[str, Any]:
    """Whether the device's random words are the host's, and how long a draw of normal noise takes."""
    shape, n = (1, 28, 28), 64
    seeds, indices, rows = [2**63 - 1 - i for i in range(n)], list(range(n)), [7 * i for i in range(n)]
    keys = torch.from_numpy(noise.keys(seeds, indices, rows)).to(found.device)
    host = noise.normal(seeds, indices, rows, noise.STEP, shape)
    words = noise.uniform(seeds, indices, rows, noise.STEP, shape, found.device).cpu()
    same = torch.equal(words, noise.uniform(seeds, indices, rows, noise.STEP, shape))
    found.check("the device's random words are the host's", same)
    drawn = noise.normal_of(keys, noise.STEP, shape)
    worst = float(((drawn.cpu() - host).abs() / host.abs().clamp_min(1e-3)).max())
    differ = float((drawn.cpu() != host).float().mean())
    found.check("noise is within two ulp of the host's", worst < TWO_ULP, f"worst {worst:.1e}, {differ:.1e} differ")
    alike = all(torch.equal(noise.normal_of(keys[:w], noise.STEP, shape), drawn[:w]) for w in (1, 2, 3, 17, 63))
    found.check("noise is the same at all widths", alike)
    if found.cuda:
        replay = CudaGraphs(found.device)(lambda: noise.normal_of(keys, noise.STEP, shape))
        found.check("noise of a graph is that of eager", torch.equal(replay(), drawn))
    milliseconds = {}
    for name, size in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32)), ("celeba64", (3, 64, 64))):
        for width in (4,) if found.small else (32, 256, 1024):
            zeros = torch.zeros(width, 4, dtype=torch.int64, device=found.device)

            def draw(zeros: torch.Tensor = zeros, size: tuple[int, int, int] = size) -> torch.Tensor:
                return noise.normal_of(zeros, noise.STEP, size)

            call = CudaGraphs(found.device)(draw) if found.cuda else draw
            milliseconds[f"{name}, {width} images"] = 1e3 * found.seconds(call)
    return {"milliseconds": milliseconds}


def widths(found: Findings) -> list[dict[str, Any]]:
    """At which widths, in which executions, a score has the bits of the reference width, and how long each takes."""
    allowed = torch.backends.cudnn.allow_tf32
    rows = []
    try:
        for subject in subjects(found):
            for tf32 in (True, False) if found.cuda else (True,):
                torch.backends.cudnn.allow_tf32 = tf32
                rows += [{"tf32": tf32, **row} for row in _executions(found, subject, f"tf32 {tf32}")]
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    return rows


@torch.inference_mode()
def _executions(found: Findings, subject: Subject, how: str) -> Iterator[dict[str, Any]]:
    model, reference = subject.model, pinned_width(found.device)
    x, conditions = subject.batch(subject.widest)

    def score(begin: int, end: int) -> torch.Tensor:
        return model.conditioned_score(x[begin:end], conditions[begin:end])

    def in_parts() -> torch.Tensor:
        return torch.cat([score(i, i + reference) for i in range(0, subject.widest, reference)])

    eager: torch.Tensor | None = None
    for execution in EXECUTIONS:
        model.executed = execution.of(model.network)
        usual, name = in_parts(), f"{subject.name}, {execution}, {how}"
        eager = usual if eager is None else eager
        found.check(f"{name}: the same scores twice", torch.equal(usual, in_parts()))
        rolled = model.conditioned_score(x[:reference].roll(1, 0), conditions[:reference]).roll(-1, 0)
        same, eager_ms, graph_ms, graph_is_eager = {}, {}, {}, {}
        for width in (w for w in bucket_widths(subject.widest) if w <= subject.widest):
            first = score(0, width)
            last = score(subject.widest - width, subject.widest)
            same[width] = torch.equal(first, usual[:width]) and torch.equal(last, usual[-width:])
            if width in (2, reference, 256, subject.widest):
                eager_ms[width] = 1e3 * found.seconds(lambda width=width: score(0, width))
            if found.cuda:
                replay = CudaGraphs(found.device)(lambda width=width: score(0, width))
                graph_is_eager[width] = torch.equal(replay(), first)
                graph_ms[width] = 1e3 * found.seconds(replay)
        if found.cuda:
            found.check(f"{name}: the scores of graphs are those of eager", all(graph_is_eager.values()))
        error = (usual - eager).square().mean() / eager.square().mean()
        yield {
            "model": subject.name,
            "execution": str(execution),
            "same_in_another_slot": torch.equal(rolled, usual[:reference]),
            "bits_of_eager_float32": torch.equal(usual, eager),
            "relative_error": float(error.sqrt()),
            "bits_of_the_reference": same,
            "milliseconds_eager": eager_ms,
            "milliseconds_of_a_graph": graph_ms,
        }
    model.executed = None


def promise(found: Findings) -> dict[str, Any]:
    """Every image has the bits that it has alone, whatever the slots, the company and the evictions."""
    model = usual_model(found)
    n, sizes = (12, (1, 4, 8)) if found.small else (80, (1, 16, 64, 256))
    alone: list[torch.Tensor] = []
    choices: dict[str, Any] = {}
    for slots in sizes:
        model.executed, begun = None, time.perf_counter()
        choice = choose(model, usual_table(found.small), slots)
        choices[str(slots)] = {**_told(choice), "seconds": time.perf_counter() - begun}
        chains = [_chain(i, model) for i in range(n if slots > 1 else len(KINDS) * 2)]
        _through(Engine(model, slots, choice.widths), chains)
        images = [chain.x.cpu() for chain in chains if chain.x is not None]
        alone = alone or images
        same = all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(alone, images, strict=False))
        found.check(f"an image has in {slots} slots the bits that it has alone", same, str(choices[str(slots)]))
    model.executed = None
    on_cpu = usual_model(Findings(torch.device("cpu"), found.small))
    there = [_chain(i, on_cpu) for i in range(len(alone))]
    run(Engine(on_cpu, len(there)), there)
    pairs = [(to_pixels(a), to_pixels(b.x)) for a, b in zip(alone, there, strict=True) if b.x is not None]
    most = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)
    found.check("its images are a CPU's to the eye", most <= GREY_STEPS, f"at most {most} grey steps apart")
    return choices


def _told(choice: Choice) -> dict[str, Any]:
    return {"execution": str(choice.execution), "widths": choice.widths, "time_ratios": choice.time_ratios}


def _chain(i: int, model: ScoreModel) -> Chain:
    """The i-th image of a mixture of samplers, a third of them inpainted."""
    if i % 3 < 2:
        return Chain(KINDS[i % len(KINDS)], i % 7, i)
    random, shape = torch.Generator().manual_seed(i), model.image.chw
    mask = torch.rand((1, *shape[1:]), generator=random) < 0.5
    return Chain(KINDS[i % len(KINDS)], i % 7, i, torch.rand(shape, generator=random), Unmasked(mask))


def _through(engine: Engine, chains: list[Chain]) -> None:
    """Runs chains to their end; they come in groups of one to five, and two are evicted now and then and come back."""
    waiting, steps = list(chains), 0
    while waiting or engine.chains:
        arriving = min(engine.free, 1 + steps % 5, len(waiting))
        engine.admit(waiting[:arriving])
        del waiting[:arriving]
        engine.step()
        steps += 1
        if steps % 3 == 0:
            waiting += [chain for chain in engine.evict(list(engine.chains)[:2]) if chain.remaining]
