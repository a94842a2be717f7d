"""`scoreserve sample`: images from a running service."""

from pathlib import Path

from cli import asking, connection
from cli.output import Output


def sample(
    out: asking.Out = Path("grid.png"),
    count: asking.Count = 16,
    model: asking.ModelName = None,
    seed: asking.Seed = None,
    sampler: asking.Sampler = None,
    priority: asking.Priority = None,
    deadline: asking.Deadline = None,
    frames: asking.Frames = None,
    filmstrip: asking.Filmstrip = False,
    columns: asking.Columns = None,
    scale: asking.Scale = 2,
    show: asking.Show = None,
    wait: asking.Wait = True,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """Ask a running service for images, write them to a file, and show them. Ctrl-C cancels the job."""
    settings = asking.sampler_settings(sampler)
    output = Output.of(out, columns, scale, frames, filmstrip)
    protocol = asking.protocol(show, as_json) if wait else None
    with connection.service(server, api_key) as client:
        job = client.sample(
            model=model,
            count=count,
            seed=seed,
            sampler=settings,
            priority=priority,
            deadline_seconds=deadline,
            frames=frames,
        )
        if wait:
            asking.deliver(client, job, output, protocol, as_json)
        else:
            asking.accepted(job, as_json)
