-- Leaves of a shard that nobody has begun the images after the first so many, as another that waits before all others
-- of its job. It stands in RQ where the first stood, and has as many retries. What was begun stays whole, since it may
-- have a saved state. Answers how many images the first has then.
-- luacheck: read_globals key range_of set_range

local function split(queue, id, number, most)
    local first, count = range_of(id, number)
    local begun = redis.call('HEXISTS', key(id, 'progress'), number) == 1
    if not count or count <= most or begun then return count end
    local shard, record = id .. '-' .. number, redis.pcall('HGETALL', 'rq:job:' .. id .. '-' .. number)
    if #record == 0 then return count end  -- RQ has been told to forget it, or it is damaged
    local ttl, other = redis.call('HGET', key(id), 'result_ttl'), redis.call('HINCRBY', key(id), 'shards', 1) - 1
    redis.call('HSET', 'rq:job:' .. id .. '-' .. other, unpack(record))
    set_range(id, other, first + most, count - most, ttl)
    set_range(id, number, first, most, ttl)
    redis.call('LPUSH', key(id, 'waiting'), other)
    if redis.call('LINSERT', queue, 'BEFORE', shard, id .. '-' .. other) < 1 then
        redis.call('LPUSH', queue, id .. '-' .. other)
    end
    return most
end

return split
