"""How many streams of events can one process of the service hold, and how late are they told?

A service and a Valkey of its own, and STREAMS clients that follow JOBS jobs, each told of twice a second. Prints the
delay from the report to the client, the service's processor time, and its connections to Redis.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from redis import Redis

from benchmarks.system import server
from worker.queue import shards
from worker.queue.jobs import JobQueue
from worker.queue.settings import QueueSettings

REPORTS = 20
SAMPLER = {"name": "follow_scores", "steps": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=500, help="that the streams follow, each as many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        valkey = server(Path(directory))
        valkey.start()
        url = f"unix://{directory}/valkey.sock"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "cli.main", "api", "--redis-url", url, "--port", str(port)]
        service = subprocess.Popen(command)
        try:
            while service.poll() is None and not _listens(port):
                time.sleep(0.1)
            if service.poll() is not None:
                sys.exit("the service did not start")
            asyncio.run(measure(f"http://127.0.0.1:{port}", url, service.pid, options.streams, options.jobs))
        finally:
            service.terminate()
            service.wait()
            valkey.stop()


async def measure(service: str, redis_url: str, pid: int, streams: int, jobs: int) -> None:
    redis = Redis.from_url(redis_url)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service, timeout=120, limits=limits) as client:
        ids = []
        for _ in range(jobs):
            response = await client.post("/samples", json={"count": 1, "sampler": SAMPLER})
            ids.append(response.raise_for_status().json()["id"])
        delays: list[float] = []
        ended: list[str] = []
        opened = asyncio.Semaphore(0)
        reported: dict[tuple[str, int], float] = {}

        async def follow(job_id: str) -> None:
            async with client.stream("GET", f"/jobs/{job_id}/events") as response:
                opened.release()
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        event = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        data = json.loads(line.removeprefix("data: "))
                        if event != "progress":
                            ended.append(event)
                        elif (key := (job_id, data["image_steps_done"])) in reported:
                            delays.append(time.perf_counter() - reported[key])

        begun = time.perf_counter()
        tasks = [asyncio.create_task(follow(ids[number % jobs])) for number in range(streams)]
        for _ in range(streams):
            await opened.acquire()
        print(f"{streams} streams of {jobs} jobs open after {time.perf_counter() - begun:.1f} s")
        print(f"connections to Redis: {sum(c['cmd'].startswith('x') for c in redis.client_list())}")
        used, begun = processor_seconds(pid), time.perf_counter()
        for step in range(1, REPORTS + 1):
            with redis.pipeline(transaction=False) as pipeline:
                for job_id in ids:
                    reported[job_id, step] = time.perf_counter()
                    shards.report(shards.Shard(job_id, 0, 0, 1, 60), step, pipeline, sigma=1.0)
                await asyncio.to_thread(pipeline.execute)
            await asyncio.sleep(max(0.0, begun + 0.5 * step - time.perf_counter()))
        share = (processor_seconds(pid) - used) / (time.perf_counter() - begun)
        queue = JobQueue(redis, QueueSettings(redis_url=redis_url))
        for job_id in ids:
            queue.cancel(job_id)
        await asyncio.gather(*tasks)
    delays.sort()
    print(f"{len(delays)} of {REPORTS * streams} reports told; {len(ended)} streams told how their job ended")
    print(f"delay: median {delays[len(delays) // 2]:.3f} s, 99 % within {delays[len(delays) * 99 // 100]:.3f} s")
    print(f"the service used {share:.0%} of a core")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
