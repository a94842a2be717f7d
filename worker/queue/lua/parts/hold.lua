-- Makes a lease last from now on, and what RQ knows of it; one that is lost is not taken again. Answers whether it
-- lasts.
-- luacheck: read_globals clock

local function hold(registry, lease, seconds)
    local now, shard, execution = clock(), string.match(lease, '^(.*):(.*)$')
    if not redis.call('ZSCORE', registry, lease) then return false end
    redis.call('ZADD', registry, string.format('%.6f', now + seconds), lease)
    redis.call('EXPIRE', 'rq:execution:' .. lease, seconds)
    redis.call('ZADD', 'rq:executions:' .. shard, 'XX', now + seconds + 60, execution)
    redis.call('EXPIRE', 'rq:executions:' .. shard, seconds + 60)
    return true
end

return hold
