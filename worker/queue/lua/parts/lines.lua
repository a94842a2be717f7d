-- Who is next. For every model there is a set of the clients that wait for it, for both a sorted set of their jobs, and
-- for each job a list of its waiting shards. `served` says how much each client has had: image-steps over their weight.
-- Who was away has saved up nothing: `now`, from where a client begins, is what the last had had whose turn it was, or
-- has had by now while no others wait. Who waits for models whose workers are slower than others has saved up no more
-- than a place before those who have had as much.
-- A client's jobs of one rank are in the order of their virtual finish, or, of a release that had none, of creation.
-- luacheck: read_globals key over range_of

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
    local model, client, rank, finish, created =
        unpack(redis.call('HMGET', key(id), 'model', 'client', 'rank', 'virtual_finish', 'created_at'))
    return model, client, rank * 1e10 + (finish or created)
end
local function cost_of(id, number, done)
    local of_job = redis.call('HMGET', key(id), 'image_steps', 'count', 'shards', 'weight')
    local steps, count, shards, weight = unpack(of_job)
    local _, images = range_of(id, number)
    done = tonumber(done or redis.call('HGET', key(id, 'progress'), number) or 0) or 0
    return math.max(0, (images and steps * images / count or steps / shards) - done) / weight
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

return served, charge, waits, line_of, cost_of, others_wait, set_clock, join, leave, again
