"""A step of the clock of Redis' machine, which a test cannot make: all that is kept of time is moved the other way."""

from typing import Any

from redis import Redis

SETS = "rq:wip:scoreserve", "scoreserve:taken", "scoreserve:deadlines", "scoreserve:webhooks"
NUMBERS = "rq:clean_registries:scoreserve:turn", "scoreserve:rate:*"


def set_back(redis: Redis, seconds: float) -> None:
    """As if the clock were so much behind from now on, on the machine of Redis and on those of all who use it."""
    for name in SETS:
        found: Any = redis.zrange(name, 0, -1, withscores=True)
        for member, score in found:
            redis.zadd(name, {member: score + seconds})
    keys: Any = redis.keys("*")
    for key in keys:
        if (left := redis.pttl(key)) > 0:
            redis.pexpire(key, int(left + 1000 * seconds))
    for pattern in NUMBERS:
        for key in redis.keys(pattern):
            redis.set(key, float(redis.get(key) or 0) + seconds, keepttl=True)
    if redis.hexists("scoreserve:clock", "last"):
        redis.hincrbyfloat("scoreserve:clock", "last", seconds)
