"""The whole deployment on a real Docker engine: `python -m tests.system.deployment`. No part of the test suite.

It builds the images, starts all of docker-compose.yml as a project of its own, and does what an
operator does: scales, kills, restarts, trains, rotates passwords, stops. Each line says what was seen; what could not
be shown is said too. Needs Docker with Compose v2 or docker-compose 1.29, and about 15 GB of disk; COMPOSE_FILE may
name override files. At the end everything is removed but the images.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

from tests.system.deployment.containers import US, Shown, compose
from tests.system.deployment.ends import Ends
from tests.system.deployment.images import Images
from tests.system.deployment.project import NOT_RUN
from tests.system.deployment.rights import Rights
from tests.system.deployment.serving import Serving
from tests.system.deployment.watching import Watching


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.system.deployment", description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="the images are there already")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    options = parser.parse_args()
    deployment = Deployment()
    failed = []
    try:
        for step in deployment.steps(build=not options.no_build):
            begun = time.monotonic()
            name = step.__name__.replace("_", " ")
            try:
                said = step()
                mark = "not run" if said is NOT_RUN else "ok     "
                print(f"{mark} {name} ({time.monotonic() - begun:.0f} s): {said}", flush=True)
            except (Shown, OSError, KeyError, subprocess.CalledProcessError) as error:
                failed.append(name)
                output = getattr(error, "stderr", None) or getattr(error, "output", None) or b""
                print(f"FAILED  {name}: {error}\n{output.decode()[-2000:]}", flush=True)
                if step in (deployment.build, deployment.up):
                    break
    finally:
        for reason in deployment.not_shown:
            print(f"not shown: {reason}", flush=True)
        if not options.keep:
            compose("--profile", "monitoring", "--profile", "train", "down", "--volumes", "--remove-orphans")
    if US.put_off:
        print(f"{US.put_off} requests for jobs were answered with 503, and asked again", flush=True)
    print(f"\n{len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


class Deployment(Images, Rights, Serving, Ends, Watching):
    """One project of containers, and what is done with it."""

    def steps(self, build: bool) -> list[Callable[[], str]]:
        return [
            *([self.build, self.layers] if build else []),
            self.sizes,
            self.up,
            self.the_first_key,
            self.what_each_may,
            self.secrets,
            self.published,
            self.grid,
            self.inpainting,
            self.page,
            self.shell,
            self.keys,
            self.large_jobs,
            self.three_workers,
            self.the_results_store_goes_away,
            self.what_is_cancelled_leaves_the_store,
            self.a_worker_is_killed,
            self.redis_is_restarted,
            self.redis_is_killed,
            self.training,
            self.a_new_version,
            self.prometheus_targets,
            self.dashboard,
            self.rules,
            self.grafana,
            self.memory,
            self.passwords_are_rotated,
            self.a_worker_is_stopped,
            self.the_api_is_replaced,
            self.a_release_replaces_another,
            self.the_queue_is_restored,
            self.audit,
        ]


if __name__ == "__main__":
    main()
