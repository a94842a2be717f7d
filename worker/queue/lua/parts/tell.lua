-- What happens to a job, for who follows it: a stream of bounded length. Of progress and previews no more is told than
-- can be looked at. `sigma` is the largest noise level that a shard is at.
-- luacheck: read_globals key

local function tell(id, event, ...)
    redis.call('XADD', key(id, 'events'), 'MAXLEN', '~', 1000, '*', 'event', event, ...)
end
local function tell_progress(id, event, now, pause)
    local told = redis.call('HGET', key(id), 'told_' .. event)
    if told and math.abs(now - told) < pause then return end
    redis.call('HSET', key(id), 'told_' .. event, now)
    local done, sigma = tonumber(redis.call('HGET', key(id), 'done') or '0'), ''
    for _, steps in ipairs(redis.call('HVALS', key(id, 'progress'))) do
        done = done + (tonumber(steps) or 0)
    end
    for _, level in ipairs(redis.call('HVALS', key(id, 'sigma'))) do
        if sigma == '' or tonumber(level) > tonumber(sigma) then sigma = level end
    end
    local state = redis.call('HEXISTS', key(id), 'started_at') == 1 and 'running' or 'queued'
    tell(id, event, 'state', state, 'done', done, 'sigma', sigma)
end

return tell, tell_progress
