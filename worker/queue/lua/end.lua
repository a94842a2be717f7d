#!lua flags=allow-oom
-- Ends a job short of its result, even where Redis is full: to cancel is to make room. What was in hand of it was
-- charged for in full, and is now for what is done. Answers whether it had not ended, and how many shards it has, or 0
-- where its record says no such thing.
-- job id, state, now, time to live, reason
-- luacheck: read_globals key over charge line_of cost_of finish

local id = ARGV[1]
local shards = tonumber(redis.pcall('HGET', key(id), 'shards')) or 0
if over(id) then return {0, shards <= 1e6 and shards or 0} end
local _, client = line_of(id)
for _, number in ipairs(redis.call('HKEYS', key(id, 'progress'))) do
    local stored = redis.call('HEXISTS', key(id, 'images'), number) == 1
    if not stored and not redis.call('LPOS', key(id, 'waiting'), number) then charge(client, -cost_of(id, number)) end
end
redis.call('DEL', key(id, 'images'), key(id, 'frames'), key(id, 'ranges'))
finish(unpack(ARGV, 1, 5))
return {1, shards}
