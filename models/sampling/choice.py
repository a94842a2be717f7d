"""Which execution is the fastest for a network on a device, by measurement: networks and machines differ too much.

What is exact is decided here too. An image's pixels must depend neither on its company nor on what a worker happened to
choose. So, asked to be exact, only an execution is taken whose scores have the very bits of the network run as it is;
and on a device where the bits of that change with the width of the batch, all is evaluated at the widths that have the
bits of one, which is the same for all workers.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.environment import device_name
from models.files import write_json
from models.samplers.table import Table
from models.sampling import noise
from models.sampling.buckets import Call, Capture, CudaGraphs, bucket_widths, pinned_width, plain
from models.sampling.execution import Execution, candidates
from models.sampling.memory import out_of_memory
from models.sampling.pieces import LEAST, Pieces
from models.score import ScoreModel

log = logging.getLogger(__name__)

LEVELS = 4  # noise levels that are probed
LARGEST_ERROR = 0.01  # of the noise that is still in the image, or else
GREY_STEP = 1 / 255  # half of this, since it would be rounded away
WORTHWHILE = 0.95  # time over that of eager; nearer to 1 is noise of the measurement
REPEATS, SECONDS = 5, 1.0  # of a measurement, at most


class Probe(NamedTuple):
    """Images on their way [n, c, h, w], conditions [n, 3 + f] of their noise level sigma, and the scores of eager."""

    sigma: float
    x: Tensor
    conditions: Tensor
    score: Tensor

    def first(self, n: int) -> "Probe":
        """Some of the images."""
        return Probe(self.sigma, self.x[:n], self.conditions[:n], self.score[:n])


@dataclass(frozen=True)
class Choice:
    """What was found.

    Args:
        execution: the fastest that may be used.
        widths: the only ones at which the network may be evaluated, ascending; None where any may.
        piece: most images that a thread of a CPU evaluates at a time; None where a part for each thread is fastest.
        time_ratios: execution -> its time over that of eager, of those that could be compared.
    """

    execution: Execution
    widths: tuple[int, ...] | None = None
    piece: int | None = None
    time_ratios: dict[str, float] = field(default_factory=dict)


class Remembered:
    """Choices in a JSON file, by what they depend on. A file that is damaged or cannot be written is done without.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> Choice | None:
        try:
            found = self._read()[key]
            widths = None if found["widths"] is None else tuple(found["widths"])
            return Choice(Execution(**found["execution"]), widths, found["piece"], found["time_ratios"])
        except (KeyError, TypeError):
            return None

    def put(self, key: str, choice: Choice) -> None:
        try:
            write_json(self.path, {**self._read(), key: asdict(choice)})
        except OSError as error:
            log.warning("what was measured is not remembered: %s", error)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def choose(  # noqa: PLR0912 (each branch is a reason why an execution is not taken)
    model: ScoreModel,
    table: Table,
    slots: int,
    exact: bool = True,
    among: Sequence[Execution] | None = None,
    capture: Capture | None = None,
    threads: int = 1,
    fixed: Execution | None = None,
) -> Choice:
    """The fastest execution of a model, in which it runs from now on.

    It is compared with eager, on the way of some images down the noise levels: by its scores, which must be the same to
    the bit with `exact`, and otherwise near enough; then by its time, alone and with all slots in use.

    Args:
        model: on its device.
        table: a sampler of it, whose noise levels are probed.
        slots: chains that will be advanced together.
        exact: an image's bits must depend on nothing but its request.
        among: what is compared; by default all that the device has.
        capture: how calls are recorded; by default as the engine does.
        threads: on which a CPU evaluates pieces of a batch.
        fixed: the execution that all workers use: nothing is compared, and bits are those that it has.
    """
    if model.device.type != "cpu":
        threads = 1  # the whole batch is evaluated at once
    if capture is None:
        capture = CudaGraphs(model.device) if model.device.type == "cuda" else plain
    if among is None:
        among = candidates(model.device, exact) if fixed is None else ()
    usual = fixed or Execution()
    model.executed = as_usual = None if fixed is None else fixed.of(model.network)
    with torch.inference_mode():
        one = pinned_width(model.device)
        if exact or model.needs_one_width:
            probes = _probes(model, table, -(-max(slots, one) // one) * one, one)
        else:
            probes = _probes(model, table, slots, slots)
        full = probes[-1].first(slots)
        widths = _widths(model, probes, slots, one, exact)
        if widths is not None:
            told = ", ".join(map(str, widths))
            log.info("here the bits of a score change with the width of a batch: all is evaluated at %s", told)
            if not _same_in_all_slots(model, probes[-1].first(one)):
                log.warning("%s gives an image other last bits in another slot, whatever is done", model.device)
        ratios: dict[Execution, float] = {}
        ways: dict[Execution, nn.Module | None] = {usual: as_usual}
        widths_of = {usual: widths}
        for execution in among:
            if execution == usual:
                continue
            try:
                model.executed = ways[execution] = execution.of(model.network)
                if exact and not all(_same_at(model, probe, one) for probe in probes):
                    log.debug("%s: other bits than eager", execution)
                    continue
                if not exact and not _near(model, probes):
                    log.debug("%s: not near enough to eager", execution)
                    continue
                found = _widths(model, probes, slots, one, exact)
                if widths is None and found is not None:
                    log.debug("%s: other bits than eager at some widths", execution)
                    continue
                widths_of[execution] = both = None if widths is None else _of_both(widths, found)
                timed = {1, -(-len(full.x) // threads)} if both is None else {both[0], both[-1]}
                ratios[execution] = _time_ratio(model, ways[execution], probes[-1], sorted(timed), capture)
            except Exception as error:  # a compiler that is missing, no memory, a kernel that does not exist
                log.info("%s cannot be used on %s: %s", execution, model.device, error)
        best = min(ratios, key=lambda execution: ratios[execution], default=usual)
        if ratios.get(best, 1.0) > WORTHWHILE:
            best = usual
    model.executed = ways[best]
    piece = _piece(model, full, threads) if model.device.type == "cpu" and widths is None else None
    return Choice(
        best, widths_of[best], piece, {str(execution): round(ratio, 3) for execution, ratio in ratios.items()}
    )


def key(
    model: ScoreModel, weights_sha256: str, slots: int, exact: bool, threads: int = 1, fixed: Execution | None = None
) -> str:
    """All that a choice depends on, in a line."""
    kind = f"{'exact' if exact else 'not exact'}, {fixed or 'any execution'}"
    backends = torch.backends
    cudnn = backends.cudnn.version()  # type: ignore[no-untyped-call]
    how = (
        f"cuda {torch.version.cuda}, cudnn {cudnn}, tf32 {backends.cudnn.allow_tf32} {backends.cuda.matmul.allow_tf32}"
    )
    if model.device.type == "cpu":
        how = f"{threads} threads"
    return f"{weights_sha256}, {device_name(model.device)}, {how}, torch {torch.__version__}, {slots} slots, {kind}"


def _probes(model: ScoreModel, table: Table, width: int, part: int) -> list[Probe]:
    """Images on their way down the noise levels of a table, by the probability flow in few steps (Karras 2022, eq. 3).

    At each level they are about as noisy as the network expects; their scores are evaluated in parts. There are fewer
    where memory does not last for all. Every other image is of the last class, if there are any, and at the next level
    the others are.
    """
    levels = sorted(set(table.column("sigma").tolist()), reverse=True)
    sigmas = [levels[i * (len(levels) - 1) // (LEVELS - 1)] for i in range(LEVELS)]
    images = list(range(width))
    z = noise.normal([0] * width, images, images, noise.INITIAL, model.image.chw).to(model.device)
    x, probes = model.parametrisation.mean + sigmas[0] * z, list[Probe]()
    labels = (model.any_label, model.classes - 1 if model.classes else model.any_label)
    try:
        for i, sigma in enumerate(sigmas):
            of_labels = [model.condition(sigma, label) for label in labels]
            conditions = torch.stack([of_labels[(i + image) % 2] for image in images])
            if not probes:
                model.conditioned_score(x, conditions)  # for which memory has to last
            score = _in_parts(model, x, conditions, part)
            probes.append(Probe(sigma, x, conditions, score))
            x = x + sigma * (sigma - sigmas[min(i + 1, LEVELS - 1)]) * score
    except Exception as error:
        if not out_of_memory(error) or width == 1:
            raise
    if len(probes) == LEVELS:
        return probes
    del probes
    return _probes(model, table, width // 2, part)


def _in_parts(model: ScoreModel, x: Tensor, conditions: Tensor, part: int) -> Tensor:
    """Scores of images, so many at a time; the last part has some of the one before, if too few are left."""
    begins = [*range(0, max(1, len(x) - part + 1), part)]
    done = [model.conditioned_score(x[i : i + part], conditions[i : i + part]) for i in begins]
    if left := max(0, len(x) - begins[-1] - part):
        done.append(model.conditioned_score(x[-part:], conditions[-part:])[-left:])
    return torch.cat(done)


def _widths(model: ScoreModel, probes: Sequence[Probe], slots: int, one: int, exact: bool) -> tuple[int, ...] | None:
    """The widths that may be used: those that give images the bits of `one`, which is one of them; None if all do.

    On a GPU these are among the widths that are recorded. On a CPU, which gains little by wide batches, it is all or
    one of them.
    """
    if model.needs_one_width:
        return (one,)
    if not exact:
        return None
    cuda, most = model.device.type == "cuda", len(probes[0].x)
    recorded = {*bucket_widths(slots), one} if cuda else {1, 2, 3, slots // 2 + 1, slots}
    looked_at = sorted({min(width, most) for width in recorded})
    same = [width for width in looked_at if all(_same_at(model, probe, width) for probe in (probes[0], probes[-1]))]
    if same == looked_at:
        return None
    return tuple(sorted({one, *(same if cuda else ())}))


def _of_both(widths: tuple[int, ...], found: tuple[int, ...] | None) -> tuple[int, ...]:
    return widths if found is None else tuple(width for width in widths if width in found)


def _same_at(model: ScoreModel, probe: Probe, width: int) -> bool:
    """Whether the first and the last images have the bits of `score` in a batch of another width."""
    most = len(probe.x)
    for begin in {0, max(0, most - width)}:
        part = slice(begin, begin + width)
        if not torch.equal(model.conditioned_score(probe.x[part], probe.conditions[part]), probe.score[part]):
            return False
    return True


def _same_in_all_slots(model: ScoreModel, probe: Probe) -> bool:
    score = model.conditioned_score(probe.x.roll(1, 0), probe.conditions.roll(1, 0))
    return torch.equal(score, probe.score.roll(1, 0))


def _near(model: ScoreModel, probes: Sequence[Probe]) -> bool:
    """Whether the denoised images, x + sigma^2 score, are those of eager.

    They may differ by a hundredth of the noise that is still in the image, or by half a grey step.
    """
    for p in probes:
        error = p.sigma**2 * (model.conditioned_score(p.x, p.conditions) - p.score).square().mean().sqrt()
        if not float(error) <= max(LARGEST_ERROR * p.sigma, GREY_STEP / 2):  # not: NaN is no score either
            return False
    return True


def _time_ratio(
    model: ScoreModel, way: nn.Module | None, probe: Probe, widths: Sequence[int], capture: Capture
) -> float:
    """Time of a way to run the network over that of eager, taken in turn; geometric mean over the widths."""
    ratios = []
    for width in widths:
        calls = [_recorded(model, executed, probe, width, capture) for executed in (None, way)]
        pairs: list[tuple[float, float]] = []
        begun = time.perf_counter()
        while len(pairs) < 2 or (len(pairs) < REPEATS and time.perf_counter() - begun < SECONDS):
            pairs.append((_seconds(calls[0], model.device), _seconds(calls[1], model.device)))
        ratios.append(median(b for _, b in pairs) / median(a for a, _ in pairs))
    return geometric_mean(ratios)


def _piece(model: ScoreModel, probe: Probe, threads: int) -> int | None:
    """The width of pieces at which a full batch is evaluated fastest; None if that is one piece a thread.

    Narrower ones may stay in a core's cache, and even out threads that are not equally fast.
    """
    whole = -(-len(probe.x) // threads)
    widths = [whole]
    while widths[-1] >= 2 * LEAST:
        widths.append(-(-widths[-1] // 2))
    seconds: dict[int, list[float]] = {width: [] for width in widths}
    begun = time.perf_counter()
    while len(seconds[whole]) < 2 or (len(seconds[whole]) < REPEATS and time.perf_counter() - begun < SECONDS):
        for width, taken in seconds.items():
            pieces = Pieces(model.conditioned_score, threads, width)
            taken.append(_seconds(lambda pieces=pieces: pieces(probe.x, probe.conditions), model.device))  # type: ignore[misc]
    best = min(widths, key=lambda width: median(seconds[width]))
    return best if median(seconds[best]) < WORTHWHILE * median(seconds[whole]) else None


def _recorded(model: ScoreModel, way: nn.Module | None, probe: Probe, width: int, capture: Capture) -> Call:
    def evaluate() -> Tensor:
        model.executed = way
        return model.conditioned_score(probe.x[:width], probe.conditions[:width])

    evaluate()
    return capture(evaluate)


def _seconds(call: Call, device: torch.device) -> float:
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
