#!lua
-- Finds the shards of a job that are nowhere, as after RQ's own tools cleaned up, and puts them back. Answers with the
-- ids of those that RQ has given up.
-- RQ's queue, RQ's registry of started jobs; job id
-- luacheck: read_globals key over again

local id = ARGV[1]
if over(id) then return {} end
local held, waits, dead = {}, {}, {}
for _, number in ipairs(redis.call('LRANGE', key(id, 'waiting'), 0, -1)) do waits[number] = true end
for _, lease in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do held[string.match(lease, '^(.*):')] = true end
for number = 0, tonumber(redis.call('HGET', key(id), 'shards')) - 1 do
    local shard = id .. '-' .. number
    if not held[shard] and redis.call('HEXISTS', key(id, 'images'), number) == 0
        and not waits[tostring(number)]
        and not redis.call('ZSCORE', 'scoreserve:taken', shard) then
        local status = redis.pcall('HGET', 'rq:job:' .. shard, 'status')
        if status == 'queued' or status == 'started' then
            redis.call('HSET', 'rq:job:' .. shard, 'status', 'queued')
            again(KEYS[1], id, number)
        else
            table.insert(dead, shard)
        end
    end
end
return dead
