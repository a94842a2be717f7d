"""Settings of a worker, from the environment: SCORESERVE_SLOTS and so on. Torch-free."""

import os

from pydantic import Field

from worker.queue.settings import QueueSettings


class WorkerSettings(QueueSettings):
    """How one worker works."""

    device: str = Field("cpu", description="torch device of the worker.")
    slots: int = Field(16, ge=1, le=4096, description="Chains that are advanced together.")
    exact: bool = Field(
        True,
        description="An image's pixels depend on its request alone. Without, the network is run in whichever way is "
        "fastest, at any width and in any type whose images look the same.",
    )
    models: str = Field("", description="Names of the models that the worker serves, with commas; all by default.")
    models_memory_mb: int = Field(4096, ge=1, description="Memory for weights; those used last stay.")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="Port of the metrics; none by default.")
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics.")
    lease_seconds: int = Field(10, ge=2, description="How long a dead worker's shards stay claimed.")
    slice_seconds: float = Field(2.0, ge=0, description="How long a shard is in hand before it may have to make way.")
    grace_seconds: float = Field(20.0, ge=0, description="How long a stopping worker goes on before it hands back.")
    threads: int = Field(
        min(2, os.cpu_count() or 1),
        ge=1,
        le=2,
        description="CPU threads of torch. With 1 or 2 an image's bits are the same at every width of the batch; with "
        "more they are not, since torch cuts tensors into uneven parts. Start more workers to use more cores.",
    )

    @property
    def model_names(self) -> list[str] | None:
        """The only models that the worker serves; None for all."""
        return [name.strip() for name in self.models.split(",") if name.strip()] or None
