"""Prometheus metrics of the service. Those of the queue are read from Redis when they are asked for."""

from collections.abc import Callable, Iterator
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from models.store import ModelStore
from service.answering.negotiation import liked
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue

TEXT, OPEN = "text/plain", "application/openmetrics-text"
_FORMATS: dict[str, tuple[Callable[[Collector], bytes], str]] = {
    TEXT: (generate_latest, CONTENT_TYPE_LATEST),
    OPEN: (openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST),
}
_OFFERS = {TEXT: TEXT, "text/*": TEXT, "*/*": TEXT, OPEN: OPEN, "application/*": OPEN}


class Metrics:
    """One application's metrics, in a registry of their own."""

    def __init__(self, queue: JobQueue, store: ModelStore) -> None:
        self.registry = CollectorRegistry()
        self.http_requests = Counter(
            "scoreserve_http_requests_total", "HTTP requests.", ["route", "method", "status"], registry=self.registry
        )
        self.rejections = Counter(
            "scoreserve_rejections_total", "Requests answered with a problem.", ["reason"], registry=self.registry
        )
        self.webhooks = Counter(
            "scoreserve_webhook_deliveries_total",
            "Attempts to call a webhook by their result.",
            ["result"],
            registry=self.registry,
        )
        self.rejections.labels("internal")  # there from the start, so that the first one is an increase
        self.registry.register(_QueueCollector(queue))
        self.registry.register(_ModelCollector(store))

    def serve(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        """Answers Prometheus from a thread, on a port of its own; returns both, to be stopped.

        Raises:
            OSError: the address cannot be listened on.
        """
        return start_http_server(port, host, self.registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus scrapes, and its media type: OpenMetrics where that is asked for, else its own text.

        Prometheus' library would choose by itself, but does not weigh what is asked for, and answers in any version.

        Args:
            accept: the header of that name.
        """
        make, media_type = _FORMATS[liked(accept, _OFFERS) or TEXT]
        return make(self.registry), media_type


class _QueueCollector(Collector):
    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        up = GaugeMetricFamily("scoreserve_redis_up", "Whether Redis answers.")
        try:
            depth, totals, workers = self.queue.depth(), self.queue.totals(), self.queue.workers()
            memory = self.queue.memory()
        except RedisError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield GaugeMetricFamily("scoreserve_redis_memory_bytes", "Memory that Redis uses.", value=memory.used)
        yield GaugeMetricFamily(
            "scoreserve_redis_memory_max_bytes", "Memory that Redis may use; 0 without a limit.", value=memory.limit
        )
        yield GaugeMetricFamily("scoreserve_workers", "Workers alive.", value=workers)
        yield GaugeMetricFamily("scoreserve_queue_jobs", "Jobs that have not ended.", value=depth.jobs)
        yield GaugeMetricFamily(
            "scoreserve_queue_image_steps", "Image-steps still to do; what to scale on.", value=depth.image_steps
        )
        yield GaugeMetricFamily(
            "scoreserve_queue_oldest_age_seconds", "Age of the oldest unended job.", value=depth.oldest_age_seconds
        )
        jobs = CounterMetricFamily("scoreserve_jobs", "Jobs by how they ended.", labels=["status"])
        for state in JobState:
            if state.final:
                jobs.add_metric([state], totals.get(f"jobs_{state}", 0))
        jobs.add_metric(["accepted"], totals.get("jobs_accepted", 0))
        yield jobs
        yield CounterMetricFamily("scoreserve_images", "Images made.", value=totals.get("images", 0))
        yield CounterMetricFamily("scoreserve_image_steps", "Image-steps of them.", value=totals.get("image_steps", 0))
        yield CounterMetricFamily(
            "scoreserve_image_steps_computed",
            "Image-steps of all workers, with those that came to nothing or were done twice.",
            value=totals.get("image_steps_computed", 0),
        )


class _ModelCollector(Collector):
    def __init__(self, store: ModelStore) -> None:
        self.store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        info = GaugeMetricFamily("scoreserve_model_info", "Models that are served.", labels=["model", "version"])
        for card in self.store.cards():
            info.add_metric([card.name, str(card.version)], 1)
        yield info
