"""Settings of a worker, from the environment: SCORESERVE_SLOTS and so on. Torch-free."""

from pydantic import Field

from models.card import EXECUTION
from models.cores import usable_cores
from worker.queue.settings import QueueSettings


def slots_for(device: str, threads: int) -> int:
    """How many chains are advanced together where nobody says: what keeps a GPU, or each thread of a CPU, busy."""
    return 256 if device.startswith("cuda") else max(16, 8 * threads)


class WorkerSettings(QueueSettings):
    """How one worker works."""

    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        examples=["cuda:1"],
        description="Device of the worker: cpu, cuda, or cuda:1 for the second GPU.",
    )
    threads: int = Field(
        default_factory=usable_cores,
        ge=1,
        le=1024,
        description="Threads of a CPU worker, each of which evaluates some of the images; by default one for each core "
        "that the process may use. An image's bits are the same on any number.",
    )
    slots: int = Field(
        default_factory=lambda given: slots_for(given.get("device", "cpu"), given.get("threads", 1)),
        ge=1,
        le=4096,
        description="Chains that are advanced together; by default 8 a thread and at least 16 on a CPU, 256 on a GPU.",
    )
    exact: bool = Field(
        True,
        description="An image's pixels depend on its request alone. Without, the network is run in whichever way is "
        "fastest, at any width and in any type whose images look the same.",
    )
    execution: str | None = Field(
        None,
        pattern=EXECUTION,
        examples=["channels_last bfloat16"],
        description="How all networks are run, such as channels_last bfloat16; the same for all workers of a queue. By "
        "default as their cards say, or in the fastest way that has the bits of eager float32.",
    )
    models: str = Field("", description="Names of the models that the worker serves, with commas; all by default.")
    models_memory_mb: int = Field(4096, ge=1, description="Memory for weights; those used last stay.")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="Port of the metrics; none by default.")
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics.")
    shard_seconds: float = Field(
        2.0,
        ge=0,
        description="What a worker takes of a large job at a time, in seconds of its measured pace; with 0 as many "
        "images as SCORESERVE_SHARD_SIZE says.",
    )
    lease_seconds: int = Field(10, ge=2, description="How long a dead worker's shards stay claimed.")
    slice_seconds: float = Field(2.0, ge=0, description="How long a shard is in hand before it may have to make way.")
    grace_seconds: float = Field(20.0, ge=0, description="How long a stopping worker goes on before it hands back.")

    @property
    def model_names(self) -> list[str] | None:
        """The only models that the worker serves; None for all."""
        return [name.strip() for name in self.models.split(",") if name.strip()] or None
