"""What each key has spent is counted once, whoever dies and whatever is sent again."""

from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.access.keys import Keys
from service.access.usage import Spent, Usage, spent
from worker.queue import keys, scripts

STEPS = 13  # of an image of `tiny`


@pytest.fixture
def key(redis: Redis) -> tuple[str, dict[str, str]]:
    """The id of a key, and the header that shows it."""
    made, secret = Keys(redis).create("alice")
    return made.id, {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def told(client, redis: Redis, key) -> Callable[[], Spent]:  # type: ignore[no-untyped-def]
    """What the key has spent, once the service has added what it counted."""

    def tell() -> Spent:
        client.call(client.app.state.context.usage.add())
        return spent(redis).get(key[0], Spent())

    return tell


def test_jobs_images_steps_requests_and_bytes_are_counted_by_key(client, key, told, redis: Redis, work) -> None:
    _, headers = key
    body = b'{"count": 5}'
    asked = client.post("/samples", content=body, headers=headers | {"Content-Type": "application/json"})
    work()
    grid = client.get(f"/jobs/{asked.json()['id']}/grid.png", headers=headers)
    refused = client.post("/samples", json={"count": 0}, headers=headers)
    client.get("/models")
    found = told()
    assert (found.requests, found.jobs, found.images, found.image_steps) == (3, 1, 5, 5 * STEPS)
    assert found.bytes_received == len(body) + len(b'{"count":0}')
    assert found.bytes_sent == sum(len(answer.content) for answer in (asked, grid, refused))
    assert set(spent(redis)) == {key[0]}


def test_who_has_no_key_is_not_counted(client, redis: Redis, work) -> None:
    client.submit(count=1)
    work()
    client.call(client.app.state.context.usage.add())
    assert spent(redis) == {}


def test_a_request_that_is_sent_again_is_one_job(client, key, told) -> None:
    headers = key[1] | {"Idempotency-Key": "once"}
    first, again = (client.post("/samples", json={"count": 1}, headers=headers) for _ in range(2))
    assert (first.json()["id"], told().jobs) == (again.json()["id"], 1)


def test_steps_that_are_done_again_after_a_crash_count_once_and_those_of_what_is_cancelled_too(
    client, key, told, redis: Redis, work
) -> None:
    job_id = client.post("/samples", json={"count": 2}, headers=key[1]).json()["id"]
    for done in (10, 20, 4):  # whoever did 20 died, and the next began at 0
        redis.eval(scripts.PROGRESS, 0, job_id, 1.0, 0, done, b"", "")
        assert told().image_steps == done
    work()
    assert (told().image_steps, told().images) == (2 * STEPS, 2)
    cancelled = client.post("/samples", json={"count": 2}, headers=key[1]).json()["id"]
    redis.eval(scripts.PROGRESS, 0, cancelled, 1.0, 0, 7, b"", "")
    assert client.delete(f"/jobs/{cancelled}", headers=key[1]).status_code == 200
    assert (told().image_steps, told().images) == (2 * STEPS + 7, 2)


def test_what_got_no_answer_is_sent_again_and_added_once(client, redis: Redis) -> None:
    context = client.app.state.context
    usage, script, lost = Usage(context.jobs.redis), context.jobs.redis.script, ["before", "after"]

    async def unsure(*asked: object) -> object:
        match lost.pop(0) if lost else "":
            case "before":
                raise RedisError("it did not arrive")
            case "after":
                await script(*asked)
                raise RedisError("its answer did not arrive")
        return await script(*asked)

    context.jobs.redis.script = unsure
    usage.count("ab", 3, 4)
    for _ in range(2):
        with pytest.raises(RedisError):
            client.call(usage.add())
        usage.count("ab", 10, 0)
    client.call(usage.add())
    assert spent(redis)["ab"] == Spent(requests=3, bytes_received=23, bytes_sent=4)
    assert not redis.ttl(f"{keys.SPENT}:{usage._service}") < 0, "it is forgotten with its service"


def test_what_was_counted_is_added_when_the_service_stops(new_client, settings, key, redis: Redis) -> None:
    client = new_client(settings)
    client.get("/models", headers=key[1])
    client.call(client._life.__aexit__(None, None, None))
    assert spent(redis)[key[0]].requests == 1
    client._life = client.app.router.lifespan_context(client.app)
    client.call(client._life.__aenter__())
