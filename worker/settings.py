"""Settings that the service and the workers share, from the environment: SCORESERVE_REDIS_URL and so on. Torch-free."""

import os
from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.store import ZOO, ModelStore


class QueueSettings(BaseSettings):
    """Where the queue and the models are, and what the queue takes."""

    model_config = SettingsConfigDict(env_prefix="SCORESERVE_", env_ignore_empty=True, extra="ignore")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("SCORESERVE_REDIS_URL", "REDIS_URL", "redis_url"),
        description="redis://, rediss:// (TLS) or unix:// address of a Redis >= 7 or Valkey server.",
    )
    models_dir: Path | None = Field(None, description="A model store searched before the models that ship.")
    default_model: str = Field("mnist", description="The model of a request that names none.")
    shard_size: int = Field(16, ge=1, le=10_000, description="Images of a job that one worker takes on at a time.")
    max_images_per_job: int = Field(100_000, ge=1)
    max_image_steps_per_job: int = Field(50_000_000, ge=1)
    result_ttl_seconds: int = Field(3600, ge=1, description="How long an ended job and its images are kept.")

    def store(self) -> ModelStore:
        """The models that are served."""
        return ModelStore(*([self.models_dir] if self.models_dir else []), ZOO)


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
