"""What `scoreserve doctor` looks at. Each check returns findings and never raises: what it meets is a finding too."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from models import networks
from models.store import BrokenModel, ModelNotFound, ModelStore
from scoreserve import Client, Patience, ScoreserveError, Unauthorized
from worker.queue.jobs import JobQueue, WorkerStatus
from worker.queue.server import connect, without_password
from worker.settings import WorkerSettings

OLDEST = 7  # version of Redis
DRIVERS = {12: 525, 13: 580}  # major version of CUDA -> that of the oldest driver of NVIDIA for it
FEW_SLOTS = 64  # of a GPU: with fewer, most of it has nothing to do
NEARLY_FULL = 0.9
TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        subject: what was looked at.
        state: `mend` is what keeps the service from working, or lets it lose jobs; `note` may be meant so.
        found: in a sentence.
        remedy: what to do; None where nothing is to be done.
    """

    subject: str
    state: Literal["good", "note", "mend"]
    found: str
    remedy: str | None = None


def examine(settings: WorkerSettings, server: str, api_key: str | None, unnamed: str | None = None) -> list[Finding]:
    """Everything there is to find.

    Args:
        settings: of a worker here.
        server: the service.
        api_key: for it.
        unnamed: that nothing runs here, where nobody named a Redis and the usual one is tried.
    """
    with connect(settings.redis_url, TIMEOUT_SECONDS, attempts=0) as connection:
        findings = [*redis(connection, settings.redis_url, unnamed)]
        if findings[0].state != "mend":
            findings += workers(JobQueue(connection, settings), settings)
    return [*findings, *checkpoints(settings), *device(settings), *service(server, api_key)]


def redis(connection: Redis, url: str, unnamed: str | None = None) -> Iterator[Finding]:
    """Whether the server is there, is new enough, and keeps what it is given."""
    try:
        info: Any = connection.info()
    except (AuthenticationError, NoPermissionError) as error:
        yield Finding("redis", "mend", f"Redis refuses: {error}", "give user and password in SCORESERVE_REDIS_URL")
        return
    except RedisError as error:
        if unnamed:
            remedy = "start `scoreserve up`, or name a Redis with --redis-url or SCORESERVE_REDIS_URL"
            yield Finding("redis", "mend", f"no Redis is named, {unnamed}", remedy)
            return
        remedy = "start one, such as with `scoreserve up`, or give its address in SCORESERVE_REDIS_URL"
        yield Finding("redis", "mend", without_password(f"no Redis at {url}: {error}"), remedy)
        return
    yield from judge(info)


def judge(info: Mapping[str, Any]) -> Iterator[Finding]:
    """What the server says of itself (INFO)."""
    valkey, version = info.get("valkey_version"), str(info.get("redis_version", "0"))
    name = f"Valkey {valkey}" if valkey else f"Redis {version}"
    if int(version.partition(".")[0]) < OLDEST:
        yield Finding("redis", "mend", f"{name} is too old", f"use Redis {OLDEST} or newer, or Valkey")
    else:
        yield Finding("redis", "good", f"{name} answers")
    policy = info.get("maxmemory_policy")
    if policy == "noeviction":
        yield Finding("eviction", "good", "noeviction")
    else:
        remedy = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration"
        yield Finding("eviction", "mend", f"{policy}: when memory is short, jobs are thrown away", remedy)
    if not info.get("aof_enabled"):
        remedy = "CONFIG SET appendonly yes, and the same in its configuration"
        yield Finding("persistence", "mend", "no append-only file: jobs are lost when Redis stops", remedy)
    elif info.get("aof_last_write_status") != "ok":
        yield Finding("persistence", "mend", "the append-only file cannot be written", "make room on its disk")
    else:
        yield Finding("persistence", "good", "append-only file")
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        total = int(info.get("total_system_memory", 0))
        of = f" of {_mb(total)} that the machine has" if total else ""
        remedy = "set maxmemory below the machine's memory, so that it refuses jobs rather than being killed"
        yield Finding("memory", "note", f"{_mb(used)}{of}, without a limit", remedy)
    elif used > NEARLY_FULL * most:
        remedy = "raise maxmemory, or lower SCORESERVE_RESULT_TTL_SECONDS so that images are kept for less long"
        yield Finding("memory", "mend", f"{_mb(used)} of {_mb(most)}: new jobs are soon refused", remedy)
    else:
        yield Finding("memory", "good", f"{_mb(used)} of {_mb(most)}")


def workers(queue: JobQueue, settings: WorkerSettings) -> Iterator[Finding]:
    """Whether workers are alive, how fast they are, and whether all give an image the same bits."""
    try:
        alive, depth, statuses = queue.workers(), queue.depth(), queue.worker_statuses()
        paces, suspended = {name: queue.forecast.pace(name) for name in settings.store().names()}, queue.suspended()
    except RedisError as error:
        yield Finding("workers", "mend", f"Redis does not tell: {error}", "give its user what docker/users.acl does")
        return
    waiting = f"{depth.jobs} jobs of {depth.image_steps:,} image-steps have not ended"
    if not alive:
        yield Finding("workers", "mend", f"none is alive; {waiting}", "start `scoreserve worker`, or look at its log")
        return
    if suspended:
        yield Finding("workers", "mend", f"{alive} alive, but suspended; {waiting}", "`rq resume` lets them go on")
        return
    yield Finding("workers", "good", f"{alive} alive; {waiting}")
    if few := [status for status in statuses if status.device.startswith("cuda") and status.slots < FEW_SLOTS]:
        where = ", ".join(f"{status.slots} on {status.device}" for status in few)
        remedy = "a GPU takes little longer for 256 images than for 16: leave SCORESERVE_SLOTS out"
        yield Finding("slots", "note", f"workers of GPUs have few slots: {where}", remedy)
    for name in sorted({name for status in statuses for name in status.arithmetics}):
        found = sorted({status.arithmetics[name] for status in statuses if name in status.arithmetics})
        if len(found) > 1:
            remedy = "an image's last bits depend on who makes it: give workers of another kind a queue of their own, "
            remedy += "or all of them one SCORESERVE_EXECUTION"
            yield Finding("arithmetic", "note", f"workers run {name} in {' and '.join(found)}", remedy)
    yield from _lacks(statuses)
    known = [f"{name} {pace.image_steps_per_second:,.0f}" for name, pace in paces.items() if pace]
    if known:
        yield Finding("pace", "good", f"image-steps a second: {', '.join(known)}")
    else:
        yield Finding("pace", "note", "not measured yet, so no job has an ETA", "ask for a few images of each model")


def checkpoints(settings: WorkerSettings) -> Iterator[Finding]:
    """Whether every model can be read and is what its card says."""
    if settings.models_dir and not settings.models_dir.is_dir():
        remedy = "make it, or correct SCORESERVE_MODELS_DIR"
        yield Finding("models", "mend", f"there is no directory {settings.models_dir}", remedy)
    store = settings.store()
    for name in store.names():
        yield _checkpoint(store, name)
    if settings.default_model not in store.names():
        remedy = f"choose one in SCORESERVE_DEFAULT_MODEL: {', '.join(store.names()) or 'none is there'}"
        yield Finding("models", "mend", f"the default model {settings.default_model} is not there", remedy)


def device(settings: WorkerSettings) -> Iterator[Finding]:
    """Whether a worker could work on this machine, and on what."""
    if find_spec("torch") is None:
        remedy = "needed where workers run: pip install 'scoreserve[worker]'"
        yield Finding("device", "note", "torch is not installed", remedy)
        return
    import torch  # noqa: PLC0415

    gpus = torch.cuda.device_count()
    there = ["cpu", *(f"cuda:{number} ({_gpu(number)})" for number in range(gpus))]
    yield from judge_driver(driver(), torch.version.cuda, gpus)
    if gpus and settings.device == "cpu":
        remedy = "start workers with --device cuda here, unless others use them"
        yield Finding("gpu", "note", f"{gpus} GPUs that no worker with these settings uses", remedy)
    try:
        torch.zeros(1, device=settings.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        remedy = f"set SCORESERVE_DEVICE to one of: {', '.join(there)}"
        said = str(error).strip().partition("\n")[0]
        yield Finding("device", "mend", f"{settings.device} cannot be used: {said}", remedy)
    else:
        yield Finding(
            "device", "good", f"torch {torch.__version__}, {settings.device} works; there is: {', '.join(there)}"
        )


def judge_driver(version: str | None, cuda: str | None, gpus: int) -> Iterator[Finding]:
    """Whether NVIDIA's driver and torch go together.

    Args:
        version: of the driver, such as 580.65.06; None if there is none.
        cuda: the CUDA that torch is made for, such as 13.0; None if it is made for a CPU alone.
        gpus: how many torch sees.
    """
    if version is None:
        return
    if cuda is None:
        remedy = "to use it: pip install --force-reinstall torch from the ordinary index, or one of "
        remedy += "https://download.pytorch.org/whl"
        yield Finding("driver", "note", f"NVIDIA's driver {version}, and a torch that is made for CPUs alone", remedy)
        return
    least = DRIVERS.get(int(cuda.partition(".")[0]), 0)
    said = f"NVIDIA's driver {version}, torch for CUDA {cuda}"
    if int(version.partition(".")[0]) < least:
        remedy = f"use driver {least} or newer, or a torch for an older CUDA: pip install torch --index-url "
        remedy += "https://download.pytorch.org/whl/cu126"
        yield Finding("driver", "mend", said, remedy)
    elif not gpus:
        remedy = "look at nvidia-smi, CUDA_VISIBLE_DEVICES and, in a container, the NVIDIA container toolkit"
        yield Finding("driver", "mend", f"{said}, but no GPU is seen", remedy)
    else:
        yield Finding("driver", "good", said)


def driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of NVIDIA's driver; None if there is none."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def service(server: str, api_key: str | None) -> Iterator[Finding]:
    """Whether the HTTP service is alive, and would take a job."""
    try:
        with Client(server, api_key=api_key, timeout=TIMEOUT_SECONDS, patience=Patience(attempts=1)) as client:
            reason = client.unready()
            if reason:
                yield Finding("service", "mend", f"{server} is not ready: {reason}", "mend what is said above first")
            else:
                yield Finding("service", "good", f"{server} is ready")
            client.models()
    except Unauthorized as error:
        remedy = "give a key of it in SCORESERVE_API_KEY; `scoreserve keys create NAME` makes one"
        yield Finding("service", "mend", f"{server}: {error}", remedy)
    except ScoreserveError as error:
        remedy = "start `scoreserve api`, or give its address in SCORESERVE_SERVER"
        yield Finding("service", "mend", f"{server}: {error}", remedy)


def _lacks(statuses: Sequence[WorkerStatus]) -> Iterator[Finding]:
    """Models that workers were asked for a moment ago, and that some or all of them cannot run."""
    found = {(lack.model, lack.version): lack.reason for status in statuses for lack in status.lacks}
    for (model, version), reason in sorted(found.items()):
        serve = [status for status in statuses if status.only is None or model in status.only]
        lack = [status.name for status in serve if (model, version) in {(it.model, it.version) for it in status.lacks}]
        said = f"{len(lack)} of the {len(serve)} that serve {model} cannot run its version {version}: {reason}"
        remedy = f"copy it to SCORESERVE_MODELS_DIR of {', '.join(lack)}"
        if len(lack) < len(serve):
            yield Finding("lacks", "note", said, f"others run it meanwhile; {remedy}")
        else:
            yield Finding("lacks", "mend", f"{said}; its jobs fail", remedy)


def _checkpoint(store: ModelStore, name: str) -> Finding:
    try:
        card = store.card(name)
        weights = store.weights(card)
        networks.check(card.network.kind)
    except networks.UnknownNetwork as error:
        return Finding("models", "mend", f"{name} version {card.version}: {error}", "see docs/your-model.md")
    except (BrokenModel, ModelNotFound, OSError) as error:
        remedy = f"publish {name} again, or take that version's directory away"
        return Finding("models", "mend", str(error).partition("\n")[0], remedy)
    return Finding("models", "good", f"{name} version {card.version}: {_mb(len(weights))}, sha256 as its card says")


def _gpu(number: int) -> str:
    import torch  # noqa: PLC0415

    properties = torch.cuda.get_device_properties(number)
    return f"{properties.name}, {_mb(properties.total_memory)}"


def _mb(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
