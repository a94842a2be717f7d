import numpy as np
import pytest
import torch

from models.parametrisation import Consistency
from models.training.data.batches import Draw
from models.training.distillation.batches import BEGINNING, FlowBatches
from models.training.distillation.flows import Flows
from models.training.objectives import Objective
from models.training.processes import Processes

SIGMAS = (4.0, 1.0, 0.25)
N, SIZE = 40, 20
CPU = torch.device("cpu")


def batches(processes: Processes = Processes()) -> FlowBatches:  # noqa: B008 (frozen)
    """Of flows whose noise is the number of the flow, plus a tenth of that of the level."""
    noises = (np.arange(N)[:, None] + np.arange(3) / 10).astype(np.float16)[:, :, None, None, None]
    ends = torch.arange(N, dtype=torch.uint8)[:, None, None, None]
    flows = Flows(SIGMAS, ends, noises, torch.arange(N) % 3, {})
    objective = Objective("consistency", torch.nn.Identity(), Consistency(s_min=0.01))
    return FlowBatches(flows, 3, SIZE, Draw(0, 0.0, 1.0, None, False, 0.1), objective, CPU, processes)


def test_the_noise_of_an_image_is_its_flows_at_its_level() -> None:
    batch = batches().batch(0)
    number = (batch.x.flatten() * 255).round()
    level = torch.tensor([SIGMAS.index(sigma) for sigma in batch.sigma.tolist()])
    assert torch.allclose(batch.normals.flatten(), number + level / 10, rtol=1e-3)
    assert batch.label is not None
    assert torch.equal(batch.label, number.long() % 3)
    assert len(set(number.tolist())) == SIZE


def test_the_largest_level_has_its_share_and_the_others_are_alike() -> None:
    made = batches()
    levels = torch.cat([made.batch(step).sigma for step in range(200)])
    shares = [float((levels == sigma).float().mean()) for sigma in SIGMAS]
    assert shares == pytest.approx([BEGINNING, (1 - BEGINNING) / 2, (1 - BEGINNING) / 2], abs=0.03)


def test_a_step_is_always_the_same_and_processes_share_it() -> None:
    whole = batches().batch(7)
    parts = [batches(Processes(rank, 2)).batch(7) for rank in range(2)]
    for name in ("x", "sigma", "factors", "label"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    assert torch.equal(whole.normals, torch.cat([part.normals for part in parts], 1))
