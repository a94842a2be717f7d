"""What the frames of a job show, as the client sees it."""

from pydantic import BaseModel, ConfigDict, Field

from models.card import ModelCard
from models.plan import plan
from models.samplers.table import snapshots
from worker.queue.job import Job


class Frame(BaseModel):
    """One frame of the annealing of a job's images."""

    evaluations: int = Field(description="Rows of the sampler's table that each image has been through.")
    sigma: float | None = Field(
        None, description="The noise level that comes next, in [0, 1] units; null for the result."
    )


class Start(BaseModel):
    """What the images are before the first evaluation: normal noise, or uniform noise from 0 to 1."""

    sigma: float = Field(description="The first noise level, in [0, 1] units.")
    mean: float = Field(description="Of the normal noise.")
    std: float | None = Field(None, description="Standard deviation of the normal noise; null where it is uniform.")


class FramesView(BaseModel):
    """All frames of a job, in the order of its animations and of the columns of its filmstrip."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "evaluations": 35,
                    "start": {"sigma": 10.0, "mean": 0.1307, "std": 10.0},
                    "frames": [{"evaluations": 18, "sigma": 0.52}, {"evaluations": 35, "sigma": None}],
                }
            ]
        }
    )

    evaluations: int = Field(description="Rows of the whole table.")
    start: Start
    frames: list[Frame]

    @classmethod
    def of(cls, job: Job, card: ModelCard) -> "FramesView":
        """The frames of a job that was asked for with some, of the model with this card."""
        _, table = plan(job.request.sampler, card, known=job.request.kind != "sample")
        sigmas = table.column("sigma")
        passed = snapshots(job.rows, job.request.frames)
        frames = [Frame(evaluations=rows, sigma=float(sigmas[rows]) if rows < job.rows else None) for rows in passed]
        start = Start(sigma=float(sigmas[0]), mean=table.initial_mean, std=table.initial_std)
        return cls(evaluations=job.rows, start=start, frames=frames)
