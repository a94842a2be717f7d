"""The promise of the engine: an image's bits depend on its own request alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.card import ImageShape
from models.networks.unet import UNet
from models.parametrisation import Edm
from models.sampling.ahead import Row, ahead
from models.sampling.buckets import Call
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.pieces import Pieces, one_each
from models.sampling.projections import Unmasked
from models.sampling.sample import run
from models.score import ScoreModel, build_network
from models.store import ZOO, ModelStore
from tests.models.sampling.chains import KNOWN, SAMPLERS, Known, Spec, annealed, bits, final, made_alone


@dataclass
class Visitor:
    """A chain that arrives at a step, and is evicted at others for two steps each."""

    spec: Spec
    arrives: int
    leaves: frozenset[int]
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = self.spec.chain()


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
        assert torch.equal(bits(final(visitor.chain)), bits(made_alone(tiny_model, visitor.spec)))


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
        assert torch.equal(bits(final(resumed)), bits(made_alone(tiny_model, spec)))


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
    assert torch.equal(final(chain), made_alone(tiny_model, spec))
    assert torch.equal(final(successor), made_alone(tiny_model, later))


def test_images_differ_by_seed_and_index(tiny_model: ScoreModel) -> None:
    for sampler in range(len(SAMPLERS)):
        a, b, c = (made_alone(tiny_model, Spec(sampler, *key)) for key in ((1, 0), (1, 1), (2, 0)))
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


def test_all_noise_is_recorded_before_work_begins(tiny_model: ScoreModel) -> None:
    recorded: list[int] = []

    def capture(call: Call) -> Call:
        recorded.append(len(call()))
        return call

    engine = Engine(tiny_model, 5, None, capture)
    engine.record_noise()
    assert recorded == [5, 4, 2] * 2, "of both streams"
    Engine(tiny_model, 5).record_noise()  # nothing to do


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
    assert torch.equal(bits(final(long)), bits(made_alone(tiny_model, Spec(1, 0, 0))))


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
    assert torch.equal(bits(final(chain)), bits(made_alone(tiny_model, spec)))
