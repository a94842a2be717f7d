"""The promise of the engine: an image's bits depend on its own request alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.card import ImageShape
from models.networks.unet import UNet
from models.parametrisation import Edm
from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.repaint import Repaint
from models.samplers.table import Table
from models.sampling.ahead import Row, ahead
from models.sampling.buckets import Call, plain
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.pieces import Pieces, one_each
from models.sampling.projections import Blocks, Grey, Unmasked
from models.sampling.sample import run
from models.schedules import geometric, karras, langevin_step_size
from models.score import ScoreModel, build_network
from models.store import ZOO, ModelStore


def annealed(sigma_max: float, levels: int, steps: int, denoise: bool) -> Table:
    sigmas = geometric(sigma_max, 0.01, levels)
    return AnnealedLangevin.table(sigmas, steps, langevin_step_size(sigmas, steps), denoise, sigma_max)


SAMPLERS = [
    Heun.table(karras(10, 0.01, 5, 7)),
    annealed(10, 4, 2, denoise=True),
    annealed(1, 3, 1, denoise=False),
    Langevin.table(0.5, 6, 0.05, denoise=True),
    FollowScores.table(0.3, 4, 0.02),
    Heun.table(karras(3, 0.1, 2, 7)),
    ConsistentAnnealed.table(geometric(10, 0.01, 6), 0.9),
    Ancestral.table(karras(10, 0.01, 7, 7)),
    AdamsBashforth.table(karras(10, 0.01, 7, 7)),
    Repaint.table(karras(10, 0.01, 4, 7), 3),
]


Known = Literal["nothing", "mask", "blocks", "grey"]  # of an image
KNOWN: tuple[Known, ...] = get_args(Known)


@dataclass(frozen=True)
class Spec:
    """What an image's bits may depend on."""

    sampler: int
    seed: int
    index: int
    known: Known = "nothing"

    def chain(self, shape: tuple[int, ...] = (1, 8, 8)) -> Chain:
        if self.known == "nothing":
            return Chain(SAMPLERS[self.sampler], self.seed, self.index)
        generator = torch.Generator().manual_seed(self.seed + self.index)
        known, mask = torch.rand(shape, generator=generator), torch.rand(shape[1:], generator=generator) < 0.5
        projections = {"mask": Unmasked(mask), "blocks": Blocks(2 + 2 * (self.index % 2)), "grey": Grey()}
        return Chain(SAMPLERS[self.sampler], self.seed, self.index, known, projections[self.known])


@dataclass
class Visitor:
    """A chain that arrives at a step, and is evicted at others for two steps each."""

    spec: Spec
    arrives: int
    leaves: frozenset[int]
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = self.spec.chain()


def final(chain: Chain) -> Tensor:
    assert chain.remaining == 0
    assert chain.x is not None
    return chain.x


def bits(x: Tensor) -> Tensor:
    return x.view(torch.int32)


def visit(engines: list[Engine], visitors: list[Visitor]) -> None:
    """Runs all visitors to their end; who comes back after an eviction is given a slot in the next engine."""
    waiting = {id(v): v.arrives for v in visitors}
    home = {id(v): i for i, v in enumerate(visitors)}
    for now in range(500):
        for v in visitors:
            if now in v.leaves and id(v) not in waiting and v.chain.remaining:
                engines[home[id(v)] % len(engines)].evict([v.chain])
                waiting[id(v)], home[id(v)] = now + 2, home[id(v)] + 1
        for v in visitors:
            engine = engines[home[id(v)] % len(engines)]
            if waiting.get(id(v), now + 1) <= now and engine.free:
                engine.admit([v.chain])
                del waiting[id(v)]
        for engine in engines:
            engine.step()
        if not any(v.chain.remaining for v in visitors):
            return
    raise AssertionError("chains are left over")


SPECS = st.builds(
    Spec, st.integers(0, len(SAMPLERS) - 1), st.integers(0, 40), st.integers(0, 3), st.sampled_from(KNOWN)
)
VISITORS = st.builds(Visitor, SPECS, st.integers(0, 6), st.frozensets(st.integers(1, 12), max_size=3))


@pytest.fixture(scope="session", params=["shipped", "attention"])
def shipped(request: pytest.FixtureRequest) -> ScoreModel:
    """The architecture of the shipped checkpoint, or a U-Net with attention, with random weights.

    Their convolutions take the real code paths.
    """
    torch.manual_seed(0)
    network = UNet() if request.param == "attention" else build_network(ModelStore(ZOO).card("mnist").network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ScoreModel(network, Edm(data_mean=0.13, data_std=0.31), ImageShape(channels=1, height=28, width=28))


@settings(max_examples=40, deadline=None)
@given(
    visitors=st.lists(VISITORS, min_size=1, max_size=16),
    slots=st.lists(st.integers(1, 16), min_size=1, max_size=2),
    threads=st.integers(1, 5),
    piece=st.none() | st.integers(1, 8),
)
def test_every_image_in_any_company_has_the_bits_it_has_alone(
    tiny_model: ScoreModel, visitors: list[Visitor], slots: list[int], threads: int, piece: int | None
) -> None:
    visit([Engine(tiny_model, n, threads=threads, piece=piece) for n in slots], visitors)
    for visitor in visitors:
        assert torch.equal(bits(final(visitor.chain)), bits(_alone(tiny_model, visitor.spec)))


@cache
def _alone(model: ScoreModel, spec: Spec) -> Tensor:
    chain = spec.chain()
    run(Engine(model, 1), [chain])
    return final(chain)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 16])
def test_the_shipped_network_gives_the_same_bits_at_every_width(shipped: ScoreModel, width: int) -> None:
    specs = [Spec(i % len(SAMPLERS), seed=5, index=i, known=KNOWN[i % 4]) for i in range(width)]
    chains = [spec.chain((1, 28, 28)) for spec in specs]
    run(Engine(shipped, width), chains)
    for spec, chain in {specs[i]: chains[i] for i in {0, 1 % width, 2 % width, width - 1}}.items():
        alone = spec.chain((1, 28, 28))
        run(Engine(shipped, 1), [alone])
        assert torch.equal(bits(final(chain)), bits(final(alone))), f"image {spec.index} of {width}"


def test_the_shipped_network_gives_the_same_bits_on_any_number_of_threads(shipped: ScoreModel) -> None:
    x = torch.randn((16, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    sigmas = torch.linspace(0.01, 10, 16).tolist()
    expected = torch.cat([shipped.score(x[i : i + 1], sigmas[i : i + 1]) for i in range(16)])
    conditions = torch.stack([shipped.condition(sigma) for sigma in sigmas])
    with one_each():
        for threads in (2, 3, 4):
            pieces = Pieces(shipped.conditioned_score, threads)
            found = {width: pieces(x[:width], conditions[:width]) for width in (1, 2, 5, 16)}
            assert [width for width, score in found.items() if not torch.equal(score, expected[:width])] == []


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("sampler", range(len(SAMPLERS)))
def test_a_chain_saved_after_any_row_goes_on_elsewhere_to_the_same_bits(
    tiny_model: ScoreModel, sampler: int, known: Known
) -> None:
    """Saved is what the docstring of Chain asks for: `previous` only where the next row carries it."""
    spec = Spec(sampler, seed=8, index=1, known=known)
    table = SAMPLERS[sampler]
    for rows in range(1, len(table)):
        first = Engine(tiny_model, 1)
        chain = spec.chain()
        first.admit([chain])
        for _ in range(rows):
            first.step()
        assert first.evict([chain]) == [chain]
        assert chain.x is not None
        assert chain.previous is not None
        carries = table.column("carry")[rows] != 0
        resumed = spec.chain()
        resumed.cursor, resumed.x = chain.cursor, torch.tensor(chain.x.tolist())
        resumed.previous = torch.tensor(chain.previous.tolist()) if carries else None
        second = Engine(tiny_model, 4)
        second.admit([Spec(0, 3, i, known=KNOWN[i + 1]).chain() for i in range(3)])
        second.admit([resumed])
        while resumed.remaining:
            second.step()
        assert torch.equal(bits(final(resumed)), bits(_alone(tiny_model, spec)))


def test_a_neighbour_that_is_not_finite_is_not_noticed(tiny_model: ScoreModel) -> None:
    spec, broken = Spec(0, 1, 2), Spec(1, 1, 3, known="mask").chain()
    broken.x = torch.full((1, 8, 8), float("nan"))
    engine, chain = Engine(tiny_model, 2), spec.chain()
    engine.admit([chain, broken])
    engine.step()
    engine.evict([broken])
    later = Spec(3, 2, 2)
    successor = later.chain()
    engine.admit([successor])
    while engine.chains:
        engine.step()
    assert torch.equal(final(chain), _alone(tiny_model, spec))
    assert torch.equal(final(successor), _alone(tiny_model, later))


def test_images_differ_by_seed_and_index(tiny_model: ScoreModel) -> None:
    for sampler in range(len(SAMPLERS)):
        a, b, c = (_alone(tiny_model, Spec(sampler, *key)) for key in ((1, 0), (1, 1), (2, 0)))
        assert min((a - b).abs().mean(), (a - c).abs().mean(), (b - c).abs().mean()) > 1e-3


def test_an_engine_counts_image_steps_and_retires_each_chain_after_its_last_row(tiny_model: ScoreModel) -> None:
    engine = Engine(tiny_model, 3)
    long, short = (Spec(i, 0, 0).chain() for i in (0, 4))
    engine.admit([long, short])
    assert engine.free == 1
    finished = [engine.step() for _ in range(len(long.table))]
    assert finished.index([short]) == len(short.table) - 1
    assert finished.index([long]) == len(long.table) - 1
    assert engine.image_steps == len(long.table) + len(short.table)
    assert (engine.free, engine.step()) == (3, [])


def test_a_shard_goes_to_the_device_and_back_in_one_go(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing that is sent costs a GPU's host, so that must not be counted by images."""
    sent: list[Tensor] = []

    def counted(tensor: Tensor, _device: torch.device) -> Tensor:
        sent.append(tensor)
        return tensor

    def of_shard(count: int) -> int:
        sent.clear()
        engine, known = Engine(tiny_model, count), torch.zeros(tiny_model.image.chw)
        projection = Unmasked(torch.ones(8, 8, dtype=torch.bool))
        chains = [Chain(annealed(1.0, 2, 1, False), 0, index, known, projection) for index in range(count)]
        engine.admit(chains)
        engine.evict(chains[: count // 2])
        engine.evict(chains[count // 2 :])
        return len(sent)

    monkeypatch.setattr("models.sampling.engine.sent", counted)
    assert 0 < of_shard(2) == of_shard(16)


def test_an_engine_refuses_what_it_has_no_place_or_no_rows_for(tiny_model: ScoreModel) -> None:
    engine = Engine(tiny_model, 1)
    done = Spec(4, 0, 0).chain()
    run(engine, [done])
    with pytest.raises(ValueError, match="without rows"):
        engine.admit([done])
    with pytest.raises(ValueError, match="2 chains for 1 free"):
        engine.admit([Spec(0, 0, i).chain() for i in range(2)])
    with pytest.raises(ValueError, match="at least one slot"):
        Engine(tiny_model, 0)
    assert engine.free == 1
    assert engine.evict([done]) == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_where_memory_does_not_last_the_engine_narrows_and_the_bits_stay(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    specs = [Spec(sampler, seed, index=seed, known=KNOWN[seed % 4]) for seed, sampler in enumerate(range(7))]
    alone = [spec.chain() for spec in specs]
    for chain in alone:
        run(Engine(tiny_model, 1), [chain])
    real, widths = tiny_model.conditioned_score, []

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        widths.append(len(x))
        if len(x) > 2:
            raise error
        return real(x, conditions)

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    engine, chains = Engine(tiny_model, 7), [spec.chain() for spec in specs]
    run(engine, chains)
    assert engine.width == 1
    assert widths[:2] == [7, 3]
    assert max(widths[2:]) == 1
    for chain, expected in zip(chains, alone, strict=True):
        assert torch.equal(bits(final(chain)), bits(final(expected)))


def test_what_has_no_memory_for_one_image_fails(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    engine = Engine(tiny_model, 4)
    engine.admit([Chain(SAMPLERS[0], 0, index) for index in range(4)])
    with pytest.raises(RuntimeError, match="allocate"):
        engine.step()
    assert [chain.cursor for chain in engine.chains] == [0] * 4


@pytest.mark.parametrize("only", [None, [4], [4, 5]])
def test_recorded_with_several_rows_a_step_the_bits_stay(tiny_model: ScoreModel, only: list[int] | None) -> None:
    """What a GPU does, with plain calls in place of graphs: buckets, static buffers, and noise from keys."""
    recorded: list[int] = []

    def capture(call: Call) -> Call:
        recorded.append(len(call()))
        return call

    specs = [Spec(i % len(SAMPLERS), seed=i, index=i, known=KNOWN[i % 4]) for i in range(13)]
    chains = [spec.chain() for spec in specs]
    engine = Engine(tiny_model, 5, only, capture)
    run(engine, chains)
    for spec, chain in zip(specs, chains, strict=True):
        assert torch.equal(bits(final(chain)), bits(_alone(tiny_model, spec)))
    assert engine.rows > 1
    assert {4, 5} <= set(recorded) <= {2, 4, 5}
    assert len(recorded) <= 3 * 3, "each width of scores and of both streams of noise is recorded once"


def test_a_network_that_needs_one_width_has_it(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    monkeypatch.setattr(tiny_model.network, "needs_one_width", True, raising=False)
    evaluate = tiny_model.conditioned_score
    monkeypatch.setattr(
        tiny_model, "conditioned_score", lambda x, conditions: (widths.append(len(x)), evaluate(x, conditions))[1]
    )
    engine = Engine(tiny_model, 6)
    run(engine, [Chain(SAMPLERS[0], 0, index) for index in range(6)])
    assert engine.only == (4,)
    assert set(widths) == {4}


def test_all_noise_is_recorded_before_work_begins(tiny_model: ScoreModel) -> None:
    recorded: list[int] = []

    def capture(call: Call) -> Call:
        recorded.append(len(call()))
        return call

    engine = Engine(tiny_model, 5, None, capture)
    engine.record_noise()
    assert recorded == [5, 4, 2] * 2, "of both streams"
    Engine(tiny_model, 5).record_noise()  # nothing to do


def test_pinned_the_network_sees_one_width_only(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real, widths = tiny_model.conditioned_score, set()

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        widths.add(len(x))
        return real(x, conditions)

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    run(Engine(tiny_model, 7, only=[3]), [Spec(i % 3, 0, i).chain() for i in range(9)])
    assert widths == {3}


def test_rows_are_made_several_at_once_and_anew_when_others_come_or_go(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []

    def counted(chains: Sequence[Chain], count: int, *rest: Any, **more: Any) -> Iterator[Row]:
        made.append((len(chains), count))
        return ahead(chains, count, *rest, **more)

    monkeypatch.setattr("models.sampling.engine.ahead", counted)
    engine = Engine(tiny_model, 4)
    first, second = (Spec(1, 0, index).chain() for index in range(2))  # of 9 rows
    engine.admit([first])
    for _ in range(3):
        engine.step()
    assert made == [(1, 8)]
    engine.admit([second])
    engine.step()
    assert made == [(1, 8), (2, 5 + 1)], "all that the first has left"
    engine.evict([first])
    engine.step()
    assert made[2:] == [(1, 8)]


def test_of_several_widths_with_equal_bits_the_narrowest_that_holds_all_is_used(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU few widths have the same bits; an image has these whichever of them its company asks for."""
    evaluate, seen = tiny_model.conditioned_score, list[int]()

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        return evaluate(x, conditions) * (1.0 if len(x) in (4, 8) else 1.0 + 1e-6)

    def capture(call: Call) -> Call:
        def replay() -> Tensor:
            out = call()
            seen.append(len(out))
            return out

        return replay

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    specs = [Spec(sampler, seed, index=seed) for seed, sampler in enumerate((0, 1, 3, 4, 7, 0, 1))]
    alone = [spec.chain() for spec in specs]
    for chain in alone:
        run(Engine(tiny_model, 1, [4], plain), [chain])
    company, engine = [spec.chain() for spec in specs], Engine(tiny_model, 7, [4, 8], capture)
    run(engine, company)
    assert {4, 8} <= set(seen) <= {2, 4, 7, 8}, "the network at 4 or 8, noise at its own widths"
    assert [engine.evaluated(n) for n in (1, 4, 5, 8, 9, 13)] == [4, 4, 8, 8, 12, 16]
    for a, b in zip(alone, company, strict=True):
        assert torch.equal(bits(final(a)), bits(final(b)))


def test_a_step_of_several_rows_ends_with_the_first_chain_that_is_finished(tiny_model: ScoreModel) -> None:
    engine = Engine(tiny_model, 2)
    engine.rows = 5
    long, short = (Spec(sampler, 0, 0).chain() for sampler in (1, 5))
    assert (len(long.table), len(short.table)) == (9, 3)
    engine.admit([long, short])
    assert engine.step() == [short]
    assert (long.cursor, engine.image_steps, engine.evaluations) == (3, 6, 3)
    assert engine.step() == []
    assert engine.step() == [long]
    assert torch.equal(bits(final(long)), bits(_alone(tiny_model, Spec(1, 0, 0))))


def test_a_step_that_fails_at_its_third_row_has_done_two(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = tiny_model.conditioned_score, []

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise RuntimeError("illegal instruction")
        return real(x, conditions)

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    spec = Spec(1, 0, 0)
    engine, chain = Engine(tiny_model, 1), spec.chain()
    engine.rows = 5
    engine.admit([chain])
    with pytest.raises(RuntimeError, match="illegal"):
        engine.step()
    assert (chain.cursor, engine.image_steps) == (2, 2)
    while chain.remaining:
        engine.step()
    assert torch.equal(bits(final(chain)), bits(_alone(tiny_model, spec)))


@pytest.mark.parametrize("only", [None, [6], [3, 6]])
def test_recorded_engines_narrow_too(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch, only: list[int] | None
) -> None:
    specs = [Spec(sampler, 1, sampler) for sampler in range(5)]
    expected = [_alone(tiny_model, spec) for spec in specs]
    real = tiny_model.conditioned_score

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, conditions)

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    engine, chains = Engine(tiny_model, 5, only, plain), [spec.chain() for spec in specs]
    run(engine, chains)
    assert engine.width <= 2
    for chain, alone in zip(chains, expected, strict=True):
        assert torch.equal(bits(final(chain)), bits(alone))


def test_what_the_network_sees_of_some_chains_is_known_before(tiny_model: ScoreModel) -> None:
    def seen(engine: Engine) -> list[int]:
        return [engine.evaluated(n) for n in range(1, 6)]

    assert seen(Engine(tiny_model, 5)) == [1, 2, 3, 4, 5]
    assert seen(Engine(tiny_model, 5, only=[2])) == [2, 2, 4, 4, 6]
    assert seen(Engine(tiny_model, 5, capture=plain)) == [2, 2, 4, 4, 5]
    assert seen(Engine(tiny_model, 5, only=[3, 4], capture=plain)) == [3, 3, 3, 4, 7]
