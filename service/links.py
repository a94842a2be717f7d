"""OpenAPI links: what can be asked of a job once it is accepted, or of a model once it is listed."""

from typing import Any

_ASKING = ("/samples", "/inpaint", "/upscale", "/colorize")


def describe(document: dict[str, Any]) -> None:
    """Adds to an OpenAPI document where the ids in its answers lead."""
    paths = document["paths"]
    of_a_job = _to(paths, "/jobs/{job_id}", job_id="$response.body#/id")
    for asking in _ASKING:
        for status in ("200", "202"):
            paths[asking]["post"]["responses"][status]["links"] = of_a_job
    paths["/jobs"]["get"]["responses"]["200"]["links"] = _to(
        paths, "/jobs/{job_id}", job_id="$response.body#/jobs/0/id"
    )
    paths["/models"]["get"]["responses"]["200"]["links"] = _to(paths, "/models/{name}", name="$response.body#/0/name")


def _to(paths: dict[str, Any], room: str, **parameters: str) -> dict[str, Any]:
    """Links to all operations of a path and of those below it."""
    links = {}
    for path, operations in paths.items():
        if path == room or path.startswith(f"{room}/"):
            given: dict[str, Any] = {**parameters, **({"index": 0} if "{index}" in path else {})}
            for method, operation in operations.items():
                description = f"{method.upper()} {path}"
                links[operation["operationId"]] = {
                    "operationId": operation["operationId"],
                    "parameters": given,
                    "description": description,
                }
    return links
