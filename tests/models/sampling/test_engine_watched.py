"""What can be seen of images on their way: estimates of them, and frames."""

import pytest
import torch

from models.samplers.table import snapshots
from models.sampling.engine import Engine
from models.sampling.projections import Unmasked
from models.sampling.sample import run
from models.score import ScoreModel
from tests.models.sampling.chains import SAMPLERS, Spec, bits, final


@pytest.mark.parametrize("sampler", range(len(SAMPLERS)))
def test_an_estimate_is_the_denoised_x_of_the_last_evaluation(tiny_model: ScoreModel, sampler: int) -> None:
    plain, painted = (Spec(sampler, seed=3, index=1, known=known).chain() for known in ("nothing", "mask"))
    engine = Engine(tiny_model, 2)
    engine.admit([plain, painted])
    engine.step()
    assert engine.estimate(plain) is None, "nobody watches"
    engine.watched = True
    before = engine._x.clone()
    sigma = float(plain.table.column("sigma")[plain.cursor])
    engine.step()
    denoised = before + sigma**2 * tiny_model.score(before, torch.full((2,), sigma))
    assert torch.allclose(engine.estimate(plain), denoised[0], atol=1e-3 * sigma)
    assert painted.known is not None
    assert isinstance(painted.projection, Unmasked)
    repainted = painted.projection.repaint
    shown = engine.estimate(painted)
    assert torch.allclose(shown, torch.where(repainted, denoised[1], painted.known), atol=1e-3 * sigma)
    assert torch.equal(shown.masked_select(~repainted), painted.known.masked_select(~repainted))
    engine.watched = False
    engine.step()
    assert engine.estimate(plain) is None


def test_the_state_of_a_chain_is_its_x_wherever_it_is(tiny_model: ScoreModel) -> None:
    chain, other = (Spec(0, seed=3, index=index).chain() for index in range(2))
    engine = Engine(tiny_model, 2)
    assert engine.state(chain) is None
    engine.admit([other, chain])
    engine.step()
    assert torch.equal(engine.state(chain), engine._x[1])
    shown = engine.state(chain).clone()
    engine.evict([chain])
    assert torch.equal(engine.state(chain), shown)


def test_watching_and_frames_do_not_change_an_image(tiny_model: ScoreModel) -> None:
    specs = [Spec(sampler, seed=5, index=2) for sampler in range(len(SAMPLERS))]
    chains = [spec.chain() for spec in specs]
    for chain in chains:
        chain.keep = snapshots(len(chain.table), 4)[:-1]
    engine = Engine(tiny_model, 3)
    engine.watched = True
    run(engine, chains)
    for spec, chain in zip(specs, chains, strict=True):
        alone = spec.chain()
        run(Engine(tiny_model, 1), [alone])
        assert torch.equal(bits(final(chain)), bits(final(alone)))
        assert len(chain.frames) == 3


def test_frames_are_what_x_was_after_their_rows(tiny_model: ScoreModel) -> None:
    chain = Spec(0, seed=1, index=0).chain()
    chain.keep = (2, 5)
    engine = Engine(tiny_model, 1)
    engine.admit([chain])
    seen = []
    for _ in range(len(chain.table)):
        engine.step()
        seen.append((engine._x[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0))
    assert len(chain.frames) == 2
    for row, frame in zip(chain.keep, chain.frames, strict=True):
        assert torch.equal(frame, seen[row - 1])


def test_a_step_that_fails_takes_no_frame(tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Spec(0, seed=1, index=0).chain()
    chain.keep = (1,)
    engine = Engine(tiny_model, 1)
    engine.admit([chain])
    before = engine._x.clone()
    monkeypatch.setattr("models.sampling.engine.quantize", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    assert torch.equal(engine._x, before)
    assert chain.cursor == 0
    assert chain.frames == []
