"""What scripts.py is made of: functions of Lua, each with those that it needs before it. Torch-free.

Keys of a job are made from its id here, so the scripts need one server, not a cluster; so does RQ.
"""

# A job that has ended stays ended, whoever comes late.
OVER = """
local function key(id, what) return 'scoreserve:job:' .. id .. (what and ':' .. what or '') end
local function over(id)
    return redis.call('HEXISTS', key(id), 'ended_at') == 1 or redis.call('EXISTS', key(id)) == 0
end
"""

# How much has been accepted and is still to do, in image-steps: of each client, and of all.
LOAD = """
local function load(client, image_steps)
    for _, who in ipairs({client, 'all'}) do
        if redis.call('HINCRBY', 'scoreserve:load', who, image_steps) <= 0 then
            redis.call('HDEL', 'scoreserve:load', who)
        end
    end
end
local function did(id, number, image_steps)
    local before = tonumber(redis.call('HGET', key(id, 'progress'), number) or '0')
    redis.call('HSET', key(id, 'progress'), number, image_steps)
    load(redis.call('HGET', key(id), 'client'), before - image_steps)
end
"""

# What happens to a job, for who follows it: a stream of bounded length. Of progress and previews no more is told than
# can be looked at. `sigma` is the largest noise level that a shard is at.
TELL = """
local function tell(id, event, ...)
    redis.call('XADD', key(id, 'events'), 'MAXLEN', '~', 1000, '*', 'event', event, ...)
end
local function tell_progress(id, event, now, pause)
    local told = redis.call('HGET', key(id), 'told_' .. event)
    if told and math.abs(now - told) < pause then return end
    redis.call('HSET', key(id), 'told_' .. event, now)
    local done, sigma = 0, ''
    for _, steps in ipairs(redis.call('HVALS', key(id, 'progress'))) do done = done + steps end
    for _, level in ipairs(redis.call('HVALS', key(id, 'sigma'))) do
        if sigma == '' or tonumber(level) > tonumber(sigma) then sigma = level end
    end
    local state = redis.call('HEXISTS', key(id), 'started_at') == 1 and 'running' or 'queued'
    tell(id, event, 'state', state, 'done', done, 'sigma', sigma)
end
"""

# Who is next. For every model there is a set of the clients that wait for it, for both a sorted set of their jobs, and
# for each job a list of its waiting shards. `served` says how much each client has had: image-steps over their weight.
# Who was away has saved up nothing: `now`, from where a client begins, is what the last had had whose turn it was, or
# has had by now while no others wait. Who waits for models whose workers are slower than others has saved up no more
# than a place before those who have had as much.
LINES = (
    OVER
    + """
local function served(client)
    local now = tonumber(redis.call('GET', 'scoreserve:now') or '0')
    local had = tonumber(redis.call('ZSCORE', 'scoreserve:served', client) or '0')
    return math.max(now, had), had
end
local function charge(client, cost)
    local had = served(client)
    redis.call('ZADD', 'scoreserve:served', string.format('%.17g', had + cost), client)
end
local function waits(client)
    for _, model in ipairs(redis.call('SMEMBERS', 'scoreserve:lines')) do
        if redis.call('EXISTS', 'scoreserve:line:' .. model .. ':' .. client) == 1 then return true end
    end
    return false
end
local function line_of(id)
    local model, client, rank, created = unpack(redis.call('HMGET', key(id), 'model', 'client', 'rank', 'created_at'))
    return model, client, rank * 1e10 + created
end
local function cost_of(id, number, done)
    local steps, shards, weight = unpack(redis.call('HMGET', key(id), 'image_steps', 'shards', 'weight'))
    done = done or redis.call('HGET', key(id, 'progress'), number) or 0
    return math.max(0, steps / shards - done) / weight
end
local function others_wait(client)
    local models = redis.call('SMEMBERS', 'scoreserve:lines')
    if #models > 0 and redis.call('HLEN', 'scoreserve:load') > 20 then return true end
    for _, model in ipairs(models) do
        for _, other in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. model)) do
            if other ~= client then return true end
        end
    end
    return false
end
local function set_clock(id, number)
    local _, client = line_of(id)
    local left, now, _, had = cost_of(id, number), tonumber(redis.call('GET', 'scoreserve:now') or '0'), served(client)
    if had < now then charge(client, left) end
    if others_wait(client) then return end
    if had - left > now then redis.call('SET', 'scoreserve:now', string.format('%.17g', had - left)) end
end
local function join(id)
    local model, client, place = line_of(id)
    if not waits(client) then charge(client, 0) end
    redis.call('SADD', 'scoreserve:lines', model)
    redis.call('SADD', 'scoreserve:lines:' .. model, client)
    redis.call('ZADD', 'scoreserve:line:' .. model .. ':' .. client, string.format('%.17g', place), id)
    redis.call('PUBLISH', 'scoreserve:waiting', model)
end
local function leave(id, model, client)
    local line, clients = 'scoreserve:line:' .. model .. ':' .. client, 'scoreserve:lines:' .. model
    redis.call('DEL', key(id, 'waiting'))
    redis.call('ZREM', line, id)
    if redis.call('EXISTS', line) == 0 then redis.call('SREM', clients, client) end
    if redis.call('EXISTS', clients) == 0 then redis.call('SREM', 'scoreserve:lines', model) end
end
local function again(queue, id, number)
    if over(id) or redis.call('LPOS', key(id, 'waiting'), number) then return end
    redis.call('HDEL', key(id, 'sigma'), number)
    redis.call('LPUSH', key(id, 'waiting'), number)
    redis.call('LPUSH', queue, id .. '-' .. number)
    join(id)
    local _, client = line_of(id)
    charge(client, -cost_of(id, number))
end
"""
)

# The list of a client's jobs: those that have not ended, and those that have, until they are forgotten.
FINISH = (
    LOAD
    + TELL
    + """
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
    local client, left = unpack(redis.call('HMGET', key(id), 'client', 'image_steps'))
    for _, done in ipairs(redis.call('HVALS', key(id, 'progress'))) do left = left - done end
    load(client, 0 - left)  -- not -left: Redis 7.0 takes no -0 for a number
    redis.call('HSET', key(id), 'state', state, 'ended_at', now, 'error', reason)
    local model, created = unpack(redis.call('HMGET', key(id), 'model', 'created_at'))
    leave(id, model, client)
    file(id, client, created, ttl)
    redis.call('DEL', key(id, 'state'), key(id, 'sigma'), key(id, 'previews'), key(id, 'watched'))
    tell(id, state)
    for _, what in ipairs({false, 'images', 'frames', 'progress', 'events'}) do
        redis.call('EXPIRE', key(id, what), ttl)
    end
    local once = redis.call('HGET', key(id), 'once')
    if once then redis.call('EXPIRE', 'scoreserve:once:' .. once, ttl) end
    if redis.call('HEXISTS', key(id), 'webhook') == 1 then
        redis.call('ZADD', 'scoreserve:webhooks', now, id)
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
"""
)

# Whose turn it is, of those that wait for some models: the client that has had least, and of its jobs the first. Of
# those that have had as much it is the one that was behind, or else whose job is older.
NEXT = """
local function models_of(named)
    local models = cjson.decode(named)
    return models == cjson.null and redis.call('SMEMBERS', 'scoreserve:lines') or models
end
local function first_of(model, client)
    local id, place = unpack(redis.call('ZRANGE', 'scoreserve:line:' .. model .. ':' .. client, 0, 0, 'WITHSCORES'))
    return id, tonumber(place)
end
local function next_of(models)
    local best
    for _, model in ipairs(models) do
        for _, client in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. model)) do
            local had, behind = served(client)
            local order = best and (had ~= best.had and had - best.had or behind - best.behind)
            if not best or order <= 0 then
                local id, place = first_of(model, client)
                if not best or order < 0 or place < best.place then
                    best = {had = had, behind = behind, place = place, id = id, model = model, client = client}
                end
            end
        end
    end
    return best
end
"""
