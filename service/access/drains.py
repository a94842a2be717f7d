"""Drains: models that take no new requests, since an operator said so. What was accepted of them goes on, and ends.

That a model is drained is seen by the script that accepts jobs, so that it holds at once, for all services.
"""

import time
from collections import Counter
from typing import Any

from redis import Redis

from worker.queue import keys


class Drains:
    """The drained models of one Redis."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def begin(self, model: str) -> None:
        """Lets a model take no new requests; does nothing if that is so already."""
        self.connection.hsetnx(keys.DRAINED, model, str(time.time()))

    def end(self, model: str) -> bool:
        """Lets a model take new requests again; says whether it did not."""
        return bool(self.connection.hdel(keys.DRAINED, model))

    def all(self) -> dict[str, float]:
        """The drained models, and since when."""
        found: Any = self.connection.hgetall(keys.DRAINED)
        return {model.decode(): float(since) for model, since in found.items()}

    def unended(self) -> Counter[str]:
        """How many jobs of each model have not ended."""
        active: Any = self.connection.zrange(keys.ACTIVE, 0, -1)
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in active:
                pipeline.hget(keys.of(job_id.decode()), "model")
            models = pipeline.execute()
        return Counter(model.decode() for model in models if model is not None)
