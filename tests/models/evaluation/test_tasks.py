import numpy as np
import pytest
import torch

from models.evaluation.tasks import TASKS, Task, tasks_of
from models.sampling.projections import Blocks, Unmasked

BY_NAME = {task.name: task for task in TASKS}


def mask(task: Task, number: int = 0) -> np.ndarray:
    projection = task.of(28, 28, 0, number)
    assert isinstance(projection, Unmasked)
    found: np.ndarray = projection.repaint[0].numpy()
    return found


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("right half", 0.5, 0.5),
        ("bottom half", 0.5, 0.5),
        ("centre square", 144 / 784, 144 / 784),
        ("thin strokes", 0.15, 0.5),
        ("70 % of pixels", 0.64, 0.76),
        ("90 % of pixels", 0.86, 0.94),
        ("around the centre", 0.75, 0.75),
    ],
)
def test_so_much_is_masked(name: str, least: float, most: float) -> None:
    shares = [mask(BY_NAME[name], number).mean() for number in range(20)]
    assert least <= min(shares)
    assert max(shares) <= most


def test_a_mask_is_that_of_the_image_and_the_seed() -> None:
    scattered = BY_NAME["70 % of pixels"]
    assert (mask(scattered, 3) == mask(scattered, 3)).all()
    assert (mask(scattered, 3) != mask(scattered, 4)).any()
    assert mask(BY_NAME["right half"])[:, 14:].all()
    assert mask(BY_NAME["bottom half"])[14:].all()
    assert not mask(BY_NAME["around the centre"])[7:21, 7:21].any()


def test_enlarging_needs_a_multiple() -> None:
    assert BY_NAME["enlarged by 7"].fits(28, 28)
    assert not BY_NAME["enlarged by 7"].fits(8, 8)
    assert BY_NAME["enlarged by 4"].of(28, 28, 0, 0) == Blocks(4)
    assert torch.equal(Blocks(2).of(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_tasks_have_names() -> None:
    assert tasks_of((), 28, 28) == list(TASKS)
    assert [task.name for task in tasks_of(("enlarged by 4", "right half"), 28, 28)] == ["right half", "enlarged by 4"]
    with pytest.raises(ValueError, match="no task 'left' for images of 28 x 28; allowed: 'right half', "):
        tasks_of(("left",), 28, 28)
    with pytest.raises(ValueError, match="no task 'enlarged by 7' for images of 8 x 8"):
        tasks_of(("enlarged by 7",), 8, 8)
