"""A worker's metrics, and what the log says of jobs and shards."""

from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.card import ModelCard
from tests.ports import free_port
from worker.batching import BatchingWorker
from worker.queue.jobs import JobQueue

NewWorker = Callable[[], BatchingWorker]


def scrape(worker: BatchingWorker) -> dict[str, float]:
    port = free_port()
    worker.metrics.serve("127.0.0.1", port)
    samples = {}
    for family in text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text):
        assert family.documentation
        for sample in family.samples:
            labels = " ".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name} {labels}".strip()] = sample.value
    return samples


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_worker_does_is_measured(queue: JobQueue, new_worker: NewWorker, ask, tiny_card) -> None:  # type: ignore[no-untyped-def]
    jobs = [
        queue.accept(queue.offer(request, tiny_card.image, steps))
        for request, steps in (ask(count=6), ask(count=2, seed=2))
    ]
    worker = new_worker()
    worker.work(burst=True)
    found = scrape(worker)
    assert found["scoreserve_worker_images_total kind=sample model=tiny"] == 8
    assert found["scoreserve_worker_image_steps_total model=tiny"] == 8 * 13
    assert found["scoreserve_slots"] == 8
    assert found["scoreserve_worker_unwritten_bytes"] == found["scoreserve_worker_store_failures_total"] == 0
    assert found["scoreserve_slots_active"] == 0
    arithmetic = worker.batch.arithmetics["tiny"]
    assert found[f"scoreserve_worker_model_info arithmetic={arithmetic} model=tiny version=1"] == 1
    assert found["scoreserve_worker_last_step_timestamp_seconds"] > jobs[0].created_at
    assert found["scoreserve_job_duration_seconds_count kind=sample model=tiny"] == 2
    assert found["scoreserve_job_queue_seconds_count kind=sample model=tiny"] == 2
    assert found["scoreserve_step_duration_seconds_count model=tiny"] == 13
    assert found["scoreserve_batch_active_slots_sum"] == 8 * 13
    assert not any(job.id in name for job in jobs for name in found)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_step_of_several_rows_counts_as_that_many_of_one(new_worker: NewWorker, tiny_card: ModelCard) -> None:
    worker = new_worker()
    worker.metrics.stepped(tiny_card, image_steps=12, evaluations=4, seconds=0.4)
    found = scrape(worker)
    assert found["scoreserve_worker_image_steps_total model=tiny"] == 12
    assert found["scoreserve_step_duration_seconds_sum model=tiny"] == pytest.approx(0.1)
    assert found["scoreserve_batch_active_slots_sum"] == 3


def test_the_log_says_which_job_and_shard_it_is_about(
    queue: JobQueue, new_worker: NewWorker, ask, tiny_card, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    request, steps = ask(count=6)
    job = queue.accept(queue.offer(request, tiny_card.image, steps))
    with caplog.at_level("INFO"):
        new_worker().work(burst=True)
    said = {
        (record.msg.split()[0], getattr(record, "shard", None)) for record in caplog.records if hasattr(record, "job")
    }
    assert said == {("claimed", 0), ("claimed", 1), ("finished", 0), ("finished", 1), ("finished", None)}
    assert {record.job for record in caplog.records if hasattr(record, "job")} == {job.id}
