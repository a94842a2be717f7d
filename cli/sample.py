"""`scoreserve sample`: a grid of images from a running service."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.console import err, fail

POLL_SECONDS = 0.2


def sample(
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("grid.png"),
    count: Annotated[int, typer.Option(metavar="<int>", min=1, help="How many images.")] = 16,
    model: Annotated[str | None, typer.Option(help="Name of a model; the service's default model by default.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="<int>", min=0, help="Drawn at random by default.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help='A sampler\'s name, or its settings as JSON: \'{"name": "heun", "levels": 10}\'.')
    ] = None,
    columns: Annotated[int | None, typer.Option(metavar="<int>", min=1, help="Images in a row.")] = None,
    scale: Annotated[
        int, typer.Option(metavar="<int>", min=1, max=16, help="Factor by which each pixel is repeated.")
    ] = 2,
    server: Annotated[str, typer.Option(help="The service.", envvar="SCORESERVE_SERVER")] = "http://127.0.0.1:8000",
) -> None:
    """Ask a running service for images and write them as one PNG."""
    body: dict[str, Any] = {"count": count, "model": model, "seed": seed}
    if sampler is not None:
        try:
            body["sampler"] = json.loads(sampler) if sampler.startswith("{") else {"name": sampler}
        except json.JSONDecodeError as error:
            fail(f"--sampler is not JSON: {error}", code=2)
    _check_writable(out)
    try:
        with httpx.Client(base_url=server, timeout=30) as client:
            job = _answer(client.post("/samples", json=body))
            try:
                job = _follow(client, job)
            except KeyboardInterrupt:
                client.delete(job["links"]["self"])
                fail(f"job {job['id']} is cancelled", code=130)
            if job["state"] != "finished":
                fail(f"job {job['id']} is {job['state']}: {job['error']}")
            parameters = {"scale": scale} | ({"columns": columns} if columns else {})
            grid = client.get(job["links"]["grid"], params=parameters)
            if grid.is_error:
                _answer(grid)
            out.write_bytes(grid.content)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        fail(f"no service at {server} ({error}); start one with `scoreserve up`")
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    err.print(f"{out}: {job['count']} images of {job['model']}, seed {job['seed']}", highlight=False, markup=False)


def _check_writable(out: Path) -> None:
    """Ends the command if the file cannot be written, which is better known before the images are made than after."""
    if out.is_dir():
        fail(f"cannot write {out}: it is a directory; name a file in it, such as --out {out / 'grid.png'}")
    if not out.parent.is_dir():
        fail(f"cannot write {out}: there is no directory {out.parent}; make it, or choose another --out")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        fail(f"cannot write {out}: you may not write there; choose another --out")


def _follow(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Shows a job's progress until it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(job["state"], total=job["progress"]["image_steps"])
        while job["state"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            job = _answer(client.get(job["links"]["self"]))
            progress.update(task, description=job["state"], completed=job["progress"]["image_steps_done"])
    return job


def _answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON of a good answer; a problem ends the command with its sentences."""
    if response.is_error:
        try:
            problem = response.json()
            lines = [problem["detail"], *(f"allowed: {e['allowed']}" for e in problem["errors"] if e.get("allowed"))]
        except (ValueError, KeyError):
            lines = [f"the service answered {response.status_code}"]
        fail("; ".join(lines))
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        fail(f"{response.url} answers, but is no scoreserve")
    return answer
