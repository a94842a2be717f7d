"""Settings that the service and the workers share, from the environment: SCORESERVE_REDIS_URL and so on. Torch-free."""

from pathlib import Path

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from models.store import ZOO, ModelStore
from worker.queue.stores import check_url


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
    shard_size: int = Field(16, ge=1, le=10_000, description="The fewest images of a job that are one shard.")
    max_images_per_job: int = Field(100_000, ge=1)
    max_image_steps_per_job: int = Field(50_000_000, ge=1)
    result_ttl_seconds: int = Field(3600, ge=1, description="How long an ended job and its images are kept.")
    results_url: str | None = Field(
        None,
        description="Where images of large jobs are kept, out of Redis: file:///DIRECTORY, s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX, the same for services and workers; none, as by default, keeps all in Redis.",
    )
    results_in_redis_bytes: int = Field(
        2**20, ge=0, description="Largest images of a job that are in Redis, though there is a place out of it."
    )

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError as error:  # which may name a part of a password
            raise ValueError("it is no address such as redis://HOST:6379/0, rediss://HOST/0 or unix://FILE") from error
        return url

    @field_validator("results_url")
    @classmethod
    def _check_results(cls, url: str | None) -> str | None:
        return None if url is None or url == "none" else check_url(url)

    def store(self) -> ModelStore:
        """The models that are served."""
        return ModelStore(*([self.models_dir] if self.models_dir else []), ZOO)
