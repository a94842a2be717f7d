"""The learning rate over a run, as settings say."""

import pytest

from models.training.settings import TrainingSettings


@pytest.mark.parametrize(("decay", "quarter"), [("cosine", (1 + 0.5**0.5) / 2), ("linear", 0.75)])
def test_the_learning_rate_warms_up_and_decays_to_zero(decay: str, quarter: float) -> None:
    settings = TrainingSettings().model_copy(update={"warmup_steps": 4, "decay": decay})
    rates = [settings.rate_factor(step, 24) for step in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(quarter)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[24] == pytest.approx(0)


def test_a_constant_learning_rate_only_warms_up() -> None:
    settings = TrainingSettings(warmup_steps=4, decay="constant")
    assert [settings.rate_factor(step, 16) for step in (0, 3, 4, 16)] == [0.25, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("steps", [1, 2, 4, 12])
def test_the_warm_up_cannot_outlast_the_run(steps: int) -> None:
    rates = [TrainingSettings(warmup_steps=10_000).rate_factor(step, steps) for step in range(steps)]
    assert max(rates) == 1
    assert rates.index(1) <= steps // 4
