"""Member: a worker as RQ and the other workers know it.

RQ's own worker is known by a record in Redis, hears RQ's commands and looks after its queues. This one also hears what
becomes of jobs, in mail that it reads between two steps; and lives on while Redis is away.
"""

import logging
import signal
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import worker_registration
from rq.command import parse_payload
from rq.serializers import JSONSerializer
from rq.utils import as_text, now
from rq.worker import SimpleWorker

from worker import upkeep
from worker.queue import keys
from worker.queue.jobs import JobQueue
from worker.queue.scripts import load
from worker.queue.server import unavailable
from worker.queue.shards import ShardJob
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

TURN = load(Path(__file__).with_name("turn.lua"))
AWAY_SECONDS = 0.5  # between two tries to reach a Redis that is away or full


class Member(SimpleWorker):
    """A worker without its work.

    Args:
        connection: to the Redis of the queue.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, settings: WorkerSettings) -> None:
        self.queue, self.settings = JobQueue(connection, settings), settings
        super().__init__(
            [self.queue.rq],
            connection=connection,
            job_class=ShardJob,
            serializer=JSONSerializer,
            maintenance_interval=settings.lease_seconds,
            worker_ttl=3 * settings.lease_seconds + 15,
            log_job_description=False,
        )
        self._mail: SimpleQueue[dict[str, Any]] = SimpleQueue()  # from signal handlers and the pub/sub thread
        self._drain_until = float("inf")
        self._next_upkeep = 0.0

    def _register(self) -> bool:
        """Makes this worker known, as soon as Redis lets it; says whether it is still to work."""
        while not self._stop_requested:
            try:
                self.connection.delete(self.key)  # what is left of another try
                self.bootstrap("WARNING")
            except RedisError as error:
                if not unavailable(error):
                    raise
                log.warning("waiting for a Redis that is away or full: %s", error)
                with suppress(RedisError):
                    self.unsubscribe()
                self._spare_others()
                time.sleep(AWAY_SECONDS)
            else:
                return True
        return False

    def _register_again(self) -> None:
        """After a time in which this worker passed for dead."""
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.execute()

    def _spare_others(self) -> None:
        """Reclaims no lease for as long as one lasts: where this worker could not extend its own, nor could others."""
        self._next_upkeep = time.monotonic() + self.settings.lease_seconds

    # What RQ calls.

    def _set_connection(self, connection: Redis) -> Redis:
        """As it is: RQ would give commands longer, for one that waits for work in Redis, which none does here."""
        return connection

    def _install_signal_handlers(self) -> None:
        """SIGTERM and SIGINT; but one that this process was started to ignore, as by a shell's `&`, it still does."""
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        super()._install_signal_handlers()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def request_force_stop(self, *_: Any) -> None:
        """A second SIGTERM or SIGINT: the grace time is over."""
        self._drain_until = 0.0

    def get_heartbeat_ttl(self, job: Any) -> int:  # noqa: ARG002
        return self.settings.lease_seconds

    def subscribe(self) -> None:
        """Listens to RQ's commands, and to what became of jobs. A message may be lost: every beat looks as well."""
        self.pubsub = self.connection.pubsub()
        channels = {self.pubsub_channel_name: self.handle_payload, keys.ENDED: self._hear, keys.WAITING: self._hear}
        self.pubsub.subscribe(**channels)
        self.pubsub_thread = self.pubsub.run_in_thread(  # type: ignore[assignment]
            sleep_time=60, daemon=True, exception_handler=self._pubsub_exception_handler
        )

    def unsubscribe(self) -> None:
        """Stops the thread first: woken by the end of its subscription, it would wait for the next one otherwise."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
        super().unsubscribe()

    def clean_registries(self) -> None:
        """Puts back what dead workers held, and what RQ's own tools took for abandoned."""
        queue = self.queue.rq
        if self.connection.eval(TURN, 1, f"{queue.registry_cleaning_key}:turn", self.settings.lease_seconds):
            upkeep.look_after(self.queue, self.settings.lease_seconds)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Commands of RQ's command line; called by the pub/sub thread."""
        payload = parse_payload(message)
        if payload["command"] == "stop-job":
            self._mail.put(payload)
        elif payload["command"] == "shutdown":
            super().handle_payload(message)

    def _hear(self, message: dict[str, Any]) -> None:
        self._mail.put({"command": as_text(message["channel"]), "job_id": as_text(message["data"])})

    def _pubsub_exception_handler(self, exc: Exception, *_: Any) -> None:
        """The pub/sub thread lives as long as the worker, whatever happens to Redis."""
        log.debug("no messages for now: %s", exc)
        time.sleep(AWAY_SECONDS)

    def _shutdown(self) -> None:
        """SIGTERM or SIGINT: claim nothing more, go on for the grace time. Never raises in the middle of a command."""
        self._stop_requested = True
        self._drain_until = time.monotonic() + self.settings.grace_seconds
        self._mail.put({"command": "wake"})
