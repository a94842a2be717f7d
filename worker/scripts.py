"""What has to happen in Redis at once or not at all, as Lua. Torch-free.

The keys are those of worker.shards; each script says which it takes, and what else.
"""

# Every script begins with this: a job that has ended stays ended, whoever comes late.
_OVER = """
local function over(job)
    return redis.call('HEXISTS', job, 'ended_at') == 1 or redis.call('EXISTS', job) == 0
end
"""

_END = """
local function finish(state, now, ttl, reason, id)
    redis.call('HSET', KEYS[1], 'state', state, 'ended_at', now, 'error', reason)
    redis.call('DEL', KEYS[4])
    for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ttl) end
    redis.call('ZREM', KEYS[5], id)
    redis.call('HINCRBY', KEYS[6], 'jobs_' .. state, 1)
end
"""

# Ends a job short of its result, even where Redis is full: to cancel is to make room. Answers 0 if it had ended.
# job, images, progress, state, active, totals; state, now, time to live, reason, job id
END = (
    "#!lua flags=allow-oom"
    + _OVER
    + _END
    + """
if over(KEYS[1]) then return 0 end
redis.call('DEL', KEYS[2])
finish(unpack(ARGV, 1, 5))
return 1
"""
)

# Stores a shard's images once, and ends the job with its last shard. Answers 2 for that one, 0 if nobody wants it.
# job, images, progress, state, active, totals;
# state, now, time to live, reason, job id, shard number, images, image-steps, number of images
STORE = (
    _OVER
    + _END
    + """
if over(KEYS[1]) then return 0 end
if redis.call('HSETNX', KEYS[2], ARGV[6], ARGV[7]) == 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[6], ARGV[8])
redis.call('HDEL', KEYS[4], ARGV[6])
redis.call('HINCRBY', KEYS[6], 'images', ARGV[9])
redis.call('HINCRBY', KEYS[6], 'image_steps', ARGV[8])
if redis.call('HLEN', KEYS[2]) < tonumber(redis.call('HGET', KEYS[1], 'shards')) then return 1 end
finish(unpack(ARGV, 1, 5))
return 2
"""
)

# Writes down how far a shard is, and what was saved of it. Answers 0 if nobody wants it any more.
# job, progress, state; now, shard number, image-steps, saved state or nothing
PROGRESS = (
    _OVER
    + """
if over(KEYS[1]) then return 0 end
redis.call('HSETNX', KEYS[1], 'started_at', ARGV[1])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[3], ARGV[2], ARGV[4]) end
return 1
"""
)
