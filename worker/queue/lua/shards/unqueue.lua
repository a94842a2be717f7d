#!lua flags=allow-oom
-- Removes all shards of a job from RQ's queue: one by one, or in one pass where they are a good part of it.
-- RQ's queue; job id, number of shards

if ARGV[2] * 16 <= redis.call('LLEN', KEYS[1]) then
    for number = 0, ARGV[2] - 1 do redis.call('LREM', KEYS[1], 1, ARGV[1] .. '-' .. number) end
    return
end
local waiting, others = redis.call('LRANGE', KEYS[1], 0, -1), {}
for _, shard in ipairs(waiting) do
    if string.match(shard, '^(.*)-%d+$') ~= ARGV[1] then others[#others + 1] = shard end
end
if #others == #waiting then return end
redis.call('DEL', KEYS[1])
for first = 1, #others, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(others, first, math.min(first + 999, #others)))
end
