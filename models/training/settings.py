"""How a model is trained: what a preset or the command line may say."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.training.execution import StepExecution
from models.training.levels import NoiseLevels
from models.training.objectives import TWICE, ObjectiveName
from models.training.optimizers import OptimizerName

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TrainingSettings(BaseModel):
    """How a model is trained. The schedule runs over all `epochs`; a run resumed with more of them stretches it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the network, and its `kind` if it is no unet."
    )
    batch: int = Field(128, ge=1)
    epochs: Finite = Field(20, gt=0)
    optimizer: OptimizerName = "adam"
    learning_rate: Finite = Field(2e-3, gt=0)
    muon_learning_rate: Finite = Field(0.03, gt=0, description="Of the weights that Muon trains.")
    warmup_steps: int = Field(300, ge=0, description="At most; a quarter of the run at most.")
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    ema_decay: Finite = Field(
        0.999,
        ge=0,
        lt=1,
        description="Song & Ermon 2020, technique 5. Of the average that is published; one four times as short and one "
        "four times as long are kept beside it.",
    )
    clip_norm: Finite = Field(1.0, gt=0)
    objective: ObjectiveName = "edm"
    log_sigma_mean: Finite = Field(-0.9, description="Noise levels are log-normal, unless `levels` says otherwise.")
    log_sigma_std: Finite = Field(1.4, gt=0)
    levels: NoiseLevels | None = Field(None, description="The only noise levels, in place of log-normal ones.")
    flip: bool = Field(False, description="Whether half of the images, at random, are mirrored left to right.")
    classes: bool = Field(False, description="Whether the network is told what is on an image.")
    label_dropout: Finite = Field(
        0.1, gt=0, le=1, description="Share of the images whose label is not told, so that all classes are learned too."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto is the faster one.")
    execution: StepExecution | None = Field(
        None, description="How a step is run; what is left out is found by measurement at the start of a run."
    )
    compile: bool = Field(False, description="torch.compile: minutes at the start, fewer milliseconds a step.")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _compilable(self) -> "TrainingSettings":
        if self.compile and self.objective in TWICE:
            raise ValueError(
                f"compile: torch.compile cannot differentiate twice, as the objective {self.objective} does"
            )
        return self

    def rate_factor(self, step: int, steps: int) -> float:
        """The learning rate in parts of its peak at a step of a run of `steps`: linear warm-up, then decay to zero at
        the end, or none."""
        warmup = min(self.warmup_steps, steps // 4)
        if step < warmup:
            return (step + 1) / warmup
        if self.decay == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return (1 + math.cos(math.pi * progress)) / 2 if self.decay == "cosine" else 1 - progress
