"""The widths at which an engine evaluates its network: those with equal bits, and what there is memory for."""

import pytest
import torch
from torch import Tensor

from models.sampling.buckets import Call, plain
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from tests.models.sampling.chains import KNOWN, SAMPLERS, Spec, bits, final, made_alone


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
        assert torch.equal(bits(final(chain)), bits(made_alone(tiny_model, spec)))
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


def test_pinned_the_network_sees_one_width_only(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real, widths = tiny_model.conditioned_score, set()

    def conditioned_score(x: Tensor, conditions: Tensor) -> Tensor:
        widths.add(len(x))
        return real(x, conditions)

    monkeypatch.setattr(tiny_model, "conditioned_score", conditioned_score)
    run(Engine(tiny_model, 7, only=[3]), [Spec(i % 3, 0, i).chain() for i in range(9)])
    assert widths == {3}


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


@pytest.mark.parametrize("only", [None, [6], [3, 6]])
def test_recorded_engines_narrow_too(
    tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch, only: list[int] | None
) -> None:
    specs = [Spec(sampler, 1, sampler) for sampler in range(5)]
    expected = [made_alone(tiny_model, spec) for spec in specs]
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
