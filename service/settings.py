"""Settings of the HTTP service, from the environment: SCORESERVE_PORT and so on."""

from pydantic import Field

from worker.settings import QueueSettings


class ServiceSettings(QueueSettings):
    """How the service listens and what it takes."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless asked otherwise.")
    port: int = Field(8000, ge=0, le=65535)
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="Largest request body.")
    max_grid_pixels: int = Field(50_000_000, ge=1, description="Largest grid that is drawn.")
    max_wait_seconds: float = Field(300.0, ge=0, description="Longest wait for a job in one request.")
    max_frames_bytes: int = Field(2**25, ge=1, description="Largest `frames` of a job: frames x images x their pixels.")
    max_event_streams: int = Field(2000, ge=1, description="Streams of events that may be open at a time.")
    redis_timeout_seconds: float = Field(1.5, gt=0, description="How long one Redis command may take.")
