#!lua
-- Stores a shard's images once, and ends the job with its last shard. Answers 2 for that one, 0 if nobody wants it.
-- Of a worker the lease ends with it, and RQ's job too; if the lease is lost nothing is done, and the answer is -1.
-- of a worker RQ's registries of started and of finished jobs, and RQ's record of the worker; job id, state, now,
-- time to live, reason, shard number, images, image-steps, number of images, frames or nothing; of a worker when it
-- began with the shard, id of the lease, its name, now as RQ has it, seconds since the lease began
-- luacheck: read_globals key over did finish spend range_of

local id, number, now, ttl = ARGV[1], ARGV[6], ARGV[3], ARGV[4]
local function store()
    if over(id) then return 0 end
    if redis.call('HSETNX', key(id, 'images'), number, ARGV[7]) == 0 then return 0 end
    if (ARGV[10] or '') ~= '' then redis.call('HSET', key(id, 'frames'), number, ARGV[10]) end
    if ARGV[11] then redis.call('HSETNX', key(id), 'started_at', ARGV[11]) end
    did(id, number, ARGV[8])
    if range_of(id, number) then  -- a release that knows no ranges looks for what is done in `progress` alone
        redis.call('HINCRBY', key(id), 'done', ARGV[8])
        redis.call('HDEL', key(id, 'progress'), number)
    end
    redis.call('HDEL', key(id, 'state'), number)
    redis.call('HDEL', key(id, 'sigma'), number)
    redis.call('HINCRBY', 'scoreserve:totals', 'images', ARGV[9])
    redis.call('HINCRBY', 'scoreserve:totals', 'image_steps', ARGV[8])
    spend(redis.call('HGET', key(id), 'client'), 'images', tonumber(ARGV[9]))
    if redis.call('HLEN', key(id, 'images')) < tonumber(redis.call('HGET', key(id), 'shards')) then return 1 end
    finish(unpack(ARGV, 1, 5))
    return 2
end
if #KEYS == 0 then return store() end
local shard, lease, name, rq_now = id .. '-' .. number, ARGV[12], ARGV[13], ARGV[14]
local job, results, execution = 'rq:job:' .. shard, 'rq:results:' .. shard, shard .. ':' .. lease
if not redis.call('ZSCORE', KEYS[1], execution) then return -1 end
local answer = store()
redis.call('HINCRBY', KEYS[3], 'successful_job_count', 1)
redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', ARGV[15])
redis.call('HSET', job, 'status', 'finished', 'ended_at', rq_now)
redis.call('EXPIRE', job, ttl)
redis.call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', 1, 'worker_name', name)
redis.call('EXPIRE', results, ttl)
redis.call('ZADD', KEYS[2], math.floor(now + ttl), shard)
redis.call('DEL', 'rq:execution:' .. execution)
redis.call('ZREM', KEYS[1], execution)
redis.call('ZREM', 'rq:executions:' .. shard, lease)
return answer
