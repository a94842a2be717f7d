"""Chains of classes, guided ones and others in one batch: the bits of each depend on its own request alone."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.guidance import UNGUIDED, Guidance
from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.sampling.chain import Chain, initial
from models.sampling.engine import Engine
from models.sampling.projections import Unmasked
from models.sampling.sample import run
from models.schedules import geometric, karras
from models.score import ScoreModel

TABLES = [
    Heun.table(karras(10, 0.01, 4, 7)),
    Ancestral.table(geometric(10, 0.01, 5)),
    FollowScores.table(0.3, 4, 0.02),
]
GUIDANCES = [UNGUIDED, Guidance(2.0), Guidance(0.0), Guidance(1.5, 0.1, 2.0), Guidance(3.0, 20.0)]


@dataclass(frozen=True)
class Spec:
    """What an image's bits may depend on."""

    table: int
    seed: int
    label: int | None
    guidance: int
    known: bool = False

    def chain(self) -> Chain:
        guidance = UNGUIDED if self.label is None else GUIDANCES[self.guidance]
        chain = Chain(TABLES[self.table], self.seed, 0, label=self.label, guidance=guidance)
        if self.known:
            generator = torch.Generator().manual_seed(self.seed)
            chain.known = torch.rand((1, 8, 8), generator=generator)
            chain.projection = Unmasked(torch.rand((8, 8), generator=generator) < 0.5)
        return chain


LABELS = st.sampled_from([None, 0, 1, 2])
SPECS = st.builds(Spec, st.integers(0, len(TABLES) - 1), st.integers(0, 5), LABELS, st.integers(0, 4), st.booleans())


def bits(chain: Chain) -> Tensor:
    assert chain.x is not None
    assert not chain.remaining
    return chain.x.view(torch.int32)


@cache
def alone(model: ScoreModel, spec: Spec) -> Tensor:
    chain = spec.chain()
    run(Engine(model, 1), [chain])
    return bits(chain)


@settings(max_examples=40, deadline=None)
@given(
    specs=st.lists(SPECS, min_size=1, max_size=12),
    slots=st.integers(1, 12),
    only=st.sampled_from([None, [4]]),
    recorded=st.booleans(),
    threads=st.integers(1, 3),
    evicted=st.lists(st.integers(0, 11), max_size=4),
)
def test_every_image_in_any_company_has_the_bits_it_has_alone(
    labelled_model: ScoreModel,
    specs: list[Spec],
    slots: int,
    only: list[int] | None,
    recorded: bool,
    threads: int,
    evicted: list[int],
) -> None:
    engine = Engine(labelled_model, slots, only, (lambda call: call) if recorded else None, threads)
    chains = [spec.chain() for spec in specs]
    waiting = list(chains)
    for turn in range(200):
        if turn in evicted:
            waiting += [c for c in engine.evict(engine.chains[:1])]
        while waiting and engine.free:
            engine.admit([waiting.pop(0)])
        if not engine.step() and not engine.chains:
            break
    for spec, chain in zip(specs, chains, strict=True):
        assert torch.equal(bits(chain), alone(labelled_model, spec))
    assert engine.image_steps == sum(chain.image_steps_done for chain in chains)


def test_a_guided_score_goes_from_that_of_all_classes_past_that_of_one(labelled_model: ScoreModel) -> None:
    """An Euler step tells the score: x_1 = x_0 + drift s."""
    table = Euler.table([2.0, 1.0])
    engine, plain = Engine(labelled_model, 3), Chain(table, 0, 0)
    found = [plain, Chain(table, 0, 0, label=1), Chain(table, 0, 0, label=1, guidance=Guidance(3.0))]
    engine.admit(found)
    engine.step()
    engine.evict(found)
    x, drift = initial([plain], (1, 8, 8)), table.rows[0, 1]
    of_all, of_one = labelled_model.score(x, 2.0)[0], labelled_model.score(x, 2.0, 1)[0]
    assert (of_all - of_one).abs().max() > 1e-3
    for chain, score in zip(found, [of_all, of_one, of_all + 3.0 * (of_one - of_all)], strict=True):
        assert chain.x is not None
        torch.testing.assert_close(chain.x, x[0] + drift * score)


def test_images_of_other_classes_and_weights_differ(labelled_model: ScoreModel) -> None:
    specs = [Spec(0, 0, None, 0), Spec(0, 0, 0, 0), Spec(0, 0, 1, 0), Spec(0, 0, 1, 1), Spec(0, 0, 1, 3)]
    images = [alone(labelled_model, spec).view(torch.float32) for spec in specs]
    differ = [(a - b).abs().mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(differ) > 1e-5
    assert torch.equal(alone(labelled_model, Spec(0, 0, 1, 0)), alone(labelled_model, Spec(0, 0, 1, 4)))


def test_a_guided_row_is_two_image_steps_in_one_evaluation(
    labelled_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    evaluate = labelled_model.conditioned_score
    monkeypatch.setattr(labelled_model, "conditioned_score", lambda x, c: (seen.append(len(x)), evaluate(x, c))[1])
    table = Euler.table([10.0, 1.0, 0.1])
    engine = Engine(labelled_model, 4)
    chains = [
        Chain(table, 0, 0),
        Chain(table, 0, 1, label=2),
        Chain(table, 0, 2, label=2, guidance=Guidance(2, 0.5, 5)),
    ]
    engine.admit(chains)
    steps = []
    while engine.chains:
        engine.step()
        steps.append((engine.image_steps, [chain.image_steps_done for chain in chains]))
    assert seen == [3, 4, 3]
    assert steps == [(3, [1, 1, 1]), (7, [2, 2, 3]), (10, [3, 3, 4])]
    assert engine.evaluations == 3


def test_more_evaluations_than_slots_are_made_in_pieces(
    labelled_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    evaluate = labelled_model.conditioned_score
    monkeypatch.setattr(labelled_model, "conditioned_score", lambda x, c: (seen.append(len(x)), evaluate(x, c))[1])
    engine = Engine(labelled_model, 3)
    engine.admit([Chain(TABLES[2], 0, i, label=i, guidance=Guidance(2.0)) for i in range(3)])
    engine.step()
    assert seen == [3, 3]
    assert engine.evaluated(6) == 6
    engine.evict(engine.chains[:1])
    engine.admit([Chain(TABLES[2], 0, 3)])
    engine.step()
    assert seen[2:] == [5], "a few more are no part of their own"


def test_a_chain_is_guided_towards_a_class_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="a guided chain has a label"):
        Chain(TABLES[0], 0, 0, guidance=Guidance(2.0))
