#!lua
-- Takes the shards that are next, of one model, until their images fill the free slots or one is suspect, which has to
-- be alone. Of one that nobody has begun it takes what fits the worker, but no more than this worker's part of all that
-- is still to do, or a job would wait for its last shard while other workers are idle; and no fewer images than its job
-- is cut into. No more are taken than take a moment, since nothing else reaches Redis meanwhile: who has room for more
-- asks again. Answers with their ids. Until they are started they stand in `taken`, so that a worker that dies in
-- between loses nothing.
-- RQ's queue, RQ's set of its workers; the models that shards may be taken of, as JSON: a list, or null for all; free
-- slots; as JSON by model the image-steps that a shard may have; the retries that a suspect has left at most
-- luacheck: read_globals clock key over charge cost_of leave models_of waiting_for in_turn next_of split

local free, fits, shards, model, had = tonumber(ARGV[2]), cjson.decode(ARGV[3]), {}, nil, nil
local part = (redis.call('HGET', 'scoreserve:load', 'all') or 0) / math.max(1, redis.call('SCARD', KEYS[2]))
local waiting = in_turn(waiting_for(models_of(ARGV[1])))
while free > 0 and #shards < 256 do
    local best = next_of(waiting)
    if not best or (model and best.model ~= model) then break end
    local id, number = best.id, redis.call('LPOP', key(best.id, 'waiting'))
    local ended = over(id)
    if number and not ended then
        local steps, count, size, largest =
            unpack(redis.call('HMGET', key(id), 'image_steps', 'count', 'shard_size', 'largest'))
        local most = math.min(part, fits[best.model] or 0)
        local room = count and math.min(largest, math.floor(most * count / steps)) or 0
        local images = split(KEYS[1], id, number, math.max(tonumber(size), room)) or tonumber(size)
        model, had, free = best.model, best.had, free - images
        charge(best.client, cost_of(id, number))
        redis.call('HSETNX', key(id, 'progress'), number, 0)
        redis.call('LREM', KEYS[1], 0, id .. '-' .. number)
        redis.call('ZADD', 'scoreserve:taken', string.format('%.6f', clock()), id .. '-' .. number)
        shards[#shards + 1] = id .. '-' .. number
        local retries = tonumber(redis.pcall('HGET', 'rq:job:' .. id .. '-' .. number, 'retries_left')) or 0
        if retries <= tonumber(ARGV[4]) then free = 0 end
    end
    if ended or redis.call('EXISTS', key(id, 'waiting')) == 0 then leave(id, best.model, best.client) end
end
if had then
    redis.call('SET', 'scoreserve:now', string.format('%.17g', had))
    local waits, many, less = {}, 10, string.format('(%.17g', had)
    for _, of_model in ipairs(redis.call('SMEMBERS', 'scoreserve:lines')) do
        for _, client in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. of_model)) do
            waits[client], many = true, many + 1
        end
    end
    for _, client in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:served', '-inf', less, 'LIMIT', 0, many)) do
        if not waits[client] then redis.call('ZREM', 'scoreserve:served', client) end
    end
end
return shards
