#!lua
-- Puts back what dead workers held: shards whose lease is over, each for one retry, and those that were taken and never
-- started. Answers with the ids of those that have no retry left. Run once in a lease, by worker/upkeep.py; `again`
-- stands in parts/lines.lua.
-- RQ's queue, RQ's registry of started jobs; seconds in which what is taken is started
-- luacheck: read_globals clock over again

local dead, now = {}, clock()
local function put_back(shard)
    local id, number = string.match(shard, '^(.*)-(%d+)$')
    if over(id) then
        redis.call('DEL', 'rq:job:' .. shard)
    else
        redis.call('HSET', 'rq:job:' .. shard, 'status', 'queued')
        again(KEYS[1], id, number)
    end
end
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
    local shard, execution = string.match(lease, '^(.*):(.*)$')
    local job, executions = 'rq:job:' .. shard, 'rq:executions:' .. shard
    local latest = redis.call('EXISTS', executions) == 0 or redis.call('ZSCORE', executions, execution)
    redis.call('ZREM', KEYS[2], lease)
    redis.call('DEL', 'rq:execution:' .. lease)
    redis.call('ZREM', executions, execution)
    if latest and redis.pcall('HGET', job, 'status') == 'started' then
        if (tonumber(redis.call('HGET', job, 'retries_left')) or 0) > 0 then
            redis.call('HINCRBY', job, 'retries_left', -1)
            put_back(shard)
        else
            table.insert(dead, shard)
        end
    end
end
for _, shard in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:taken', '-inf', now - ARGV[1])) do
    redis.call('ZREM', 'scoreserve:taken', shard)
    if redis.pcall('HGET', 'rq:job:' .. shard, 'status') == 'queued' then put_back(shard) end
end
return dead
