#!lua
-- Takes the next shard, and answers with its id. Until it is started it stands in `taken`, so that a worker that dies
-- in between loses nothing.
-- RQ's queue; the models that shards may be taken of, as JSON: a list, or null for all
-- luacheck: read_globals clock key over charge cost_of leave models_of next_of

while true do
    local best = next_of(models_of(ARGV[1]))
    if not best then return false end
    local id, number = best.id, redis.call('LPOP', key(best.id, 'waiting'))
    if over(id) or redis.call('LLEN', key(id, 'waiting')) == 0 then leave(id, best.model, best.client) end
    if number and not over(id) then
        redis.call('SET', 'scoreserve:now', string.format('%.17g', best.had))
        local waiting, many, less = {}, 10, string.format('(%.17g', best.had)
        for _, model in ipairs(redis.call('SMEMBERS', 'scoreserve:lines')) do
            for _, client in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. model)) do
                waiting[client], many = true, many + 1
            end
        end
        for _, client in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:served', '-inf', less, 'LIMIT', 0, many)) do
            if not waiting[client] then redis.call('ZREM', 'scoreserve:served', client) end
        end
        charge(best.client, cost_of(id, number))
        redis.call('LREM', KEYS[1], 0, id .. '-' .. number)
        redis.call('ZADD', 'scoreserve:taken', string.format('%.6f', clock()), id .. '-' .. number)
        return id .. '-' .. number
    end
end
