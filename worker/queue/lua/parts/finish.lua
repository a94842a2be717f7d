-- The list of a client's jobs: those that have not ended, and those that have, until they are forgotten.
-- luacheck: read_globals clock key load tell leave keep_for

local function file(id, client, created, ttl)
    local jobs = 'scoreserve:client:' .. client
    redis.call('ZREM', jobs .. ':unended', id)
    redis.call('ZADD', jobs .. ':ended', created, id)
    for _, old in ipairs(redis.call('ZRANGE', jobs .. ':ended', 0, 9)) do
        if redis.call('EXISTS', key(old)) == 0 then redis.call('ZREM', jobs .. ':ended', old) end
    end
    redis.call('EXPIRE', jobs .. ':ended', ttl, 'NX')
    redis.call('EXPIRE', jobs .. ':ended', ttl, 'GT')
end
local function finish(id, state, now, ttl, reason)
    local client, left, stored = unpack(redis.call('HMGET', key(id), 'client', 'image_steps', 'done'))
    left = left - (stored or 0)
    for _, done in ipairs(redis.call('HVALS', key(id, 'progress'))) do left = left - (tonumber(done) or 0) end
    load(client, 0 - left)  -- not -left: Redis 7.0 takes no -0 for a number
    redis.call('HSET', key(id), 'state', state, 'ended_at', now, 'error', reason)
    local model, created, bytes = unpack(redis.call('HMGET', key(id), 'model', 'created_at', 'bytes'))
    leave(id, model, client)
    file(id, client, created, ttl)
    keep_for(client, id, bytes, state == 'finished' and tonumber(ttl) or 0)
    redis.call('DEL', key(id, 'state'), key(id, 'sigma'), key(id, 'previews'), key(id, 'chains'), key(id, 'watched'))
    tell(id, state)
    for _, what in ipairs({false, 'images', 'frames', 'ranges', 'progress', 'events'}) do
        redis.call('EXPIRE', key(id, what), ttl)
    end
    local once = redis.call('HGET', key(id), 'once')
    if once then redis.call('EXPIRE', 'scoreserve:once:' .. once, ttl) end
    if redis.call('HEXISTS', key(id), 'webhook') == 1 then
        redis.call('ZADD', 'scoreserve:webhooks', string.format('%.6f', clock()), id)
        redis.call('EXPIRE', 'scoreserve:webhooks', ttl, 'NX')
        redis.call('EXPIRE', 'scoreserve:webhooks', ttl, 'GT')
    end
    redis.call('ZREM', 'scoreserve:active', id)
    redis.call('ZREM', 'scoreserve:deadlines', id)
    if redis.call('EXISTS', 'scoreserve:active') == 0 then
        redis.call('DEL', 'scoreserve:served', 'scoreserve:now', 'scoreserve:load')
    end
    redis.call('HINCRBY', 'scoreserve:totals', 'jobs_' .. state, 1)
    redis.call('PUBLISH', 'scoreserve:ended', id)
end

return file, finish
