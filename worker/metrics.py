"""Prometheus metrics of one worker, on a port of its own."""

import time

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from models.card import ModelCard
from worker.beside.writers import Writers
from worker.device.batch import Batch
from worker.queue.job import Job

JOB_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
STEP_BUCKETS = tuple(0.0005 * 2**i for i in range(14))  # 0.5 ms to 4 s
SLOT_BUCKETS = tuple(2**i for i in range(11))


class WorkerMetrics:
    """What one worker counts, in a registry of its own. Labels are models and kinds, never a job.

    Args:
        batch: what it works on.
        writers: of what it has made.
    """

    def __init__(self, batch: Batch, writers: Writers) -> None:
        self.registry = registry = CollectorRegistry()
        of_jobs = {"labelnames": ["model", "kind"], "registry": registry}
        self.images = Counter("scoreserve_worker_images_total", "Images made here.", **of_jobs)  # type: ignore[arg-type]
        self.image_steps = Counter(
            "scoreserve_worker_image_steps_total", "Image-steps computed here.", ["model"], registry=registry
        )
        self.job_seconds = Histogram(
            "scoreserve_job_duration_seconds",
            "From a job's acceptance to its end, of jobs whose last shard was finished here.",
            buckets=JOB_BUCKETS,
            **of_jobs,  # type: ignore[arg-type]
        )
        self.queue_seconds = Histogram(
            "scoreserve_job_queue_seconds",
            "From a job's acceptance to its start, of jobs that were started here.",
            buckets=JOB_BUCKETS,
            **of_jobs,  # type: ignore[arg-type]
        )
        self.step_seconds = Histogram(
            "scoreserve_step_duration_seconds",
            "One network evaluation for all chains of a model.",
            ["model"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.active_slots = Histogram(
            "scoreserve_batch_active_slots",
            "Images that the network saw in a step: a guided chain is two.",
            buckets=SLOT_BUCKETS,
            registry=registry,
        )
        self._of_models: dict[str, tuple[Counter, Histogram]] = {}  # looked up once: there are many steps
        self._last_step = 0.0
        last_step = Gauge(
            "scoreserve_worker_last_step_timestamp_seconds", "When the last step ended.", registry=registry
        )
        last_step.set_function(lambda: self._last_step)
        slots = Gauge("scoreserve_slots", "Slots of the worker.", registry=registry)
        slots.set(batch.slots)
        active = Gauge("scoreserve_slots_active", "Slots with a chain.", registry=registry)
        active.set_function(lambda: batch.active)
        registry.register(_Loaded(batch))
        registry.register(_Writing(writers))
        batch.on_step = self.stepped

    def serve(self, host: str, port: int) -> None:
        """Answers Prometheus from a thread.

        Raises:
            OSError: the address cannot be listened on.
        """
        start_http_server(port, host, self.registry)

    def stepped(self, card: ModelCard, image_steps: int, evaluations: int, seconds: float) -> None:
        """A step of a model's engine is done: all its chains through one network evaluation, or through several."""
        if card.name not in self._of_models:
            self._of_models[card.name] = self.image_steps.labels(card.name), self.step_seconds.labels(card.name)
        of_model, step_seconds = self._of_models[card.name]
        of_model.inc(image_steps)
        step_seconds.observe(seconds / max(1, evaluations))
        self.active_slots.observe(image_steps / max(1, evaluations))
        self._last_step = time.time()

    def started(self, job: Job) -> None:
        """The first shard of a job is begun."""
        self.queue_seconds.labels(job.request.model, job.request.kind).observe(max(0.0, time.time() - job.created_at))

    def finished(self, job: Job, images: int, last: bool) -> None:
        """A shard is finished, and with the last one its job."""
        self.images.labels(job.request.model, job.request.kind).inc(images)
        if last:
            elapsed = max(0.0, time.time() - job.created_at)
            self.job_seconds.labels(job.request.model, job.request.kind).observe(elapsed)


class _Writing(Collector):
    """What waits to be written into the results store, looked up when it is asked for."""

    def __init__(self, writers: Writers) -> None:
        self.writers = writers

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        what = "Images that are made, and not yet in the results store."
        failures = "Tries to write into the results store that found it away."
        return [
            GaugeMetricFamily("scoreserve_worker_unwritten_bytes", what, value=self.writers.backlog),
            CounterMetricFamily("scoreserve_worker_store_failures", failures, value=self.writers.failures),
        ]


class _Loaded(Collector):
    """Models in memory, and the memory of a GPU, looked up when they are asked for."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def collect(self) -> list[GaugeMetricFamily]:
        info = GaugeMetricFamily(
            "scoreserve_worker_model_info",
            "Models that the worker has loaded, and the execution and the device whose bits their images have.",
            labels=["model", "version", "arithmetic"],
        )
        for card in self.batch.cards:
            info.add_metric([card.name, str(card.version), self.batch.arithmetics.get(card.name, "")], 1)
        families = [info]
        if self.batch.device.startswith("cuda"):
            memory = GaugeMetricFamily("scoreserve_gpu_memory_bytes", "Memory of the GPU.", labels=["kind"])
            free, total = torch.cuda.mem_get_info(self.batch.device)
            for kind, value in (
                ("allocated", torch.cuda.memory_allocated(self.batch.device)),
                ("reserved", torch.cuda.memory_reserved(self.batch.device)),
                ("free", free),
                ("total", total),
            ):
                memory.add_metric([kind], value)
            families.append(memory)
        return families
