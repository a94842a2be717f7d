#!lua flags=allow-oom
-- Ends a job short of its result, even where Redis is full: to cancel is to make room. What was in hand of it was
-- charged for in full, and is now for what is done. Answers 0 if it had ended.
-- job id, state, now, time to live, reason
-- luacheck: read_globals key over charge line_of cost_of finish

local id = ARGV[1]
if over(id) then return 0 end
local _, client = line_of(id)
local elsewhere = redis.call('HLEN', key(id, 'images')) + redis.call('LLEN', key(id, 'waiting'))
local in_hand, progress = redis.call('HGET', key(id), 'shards') - elsewhere, redis.call('HGETALL', key(id, 'progress'))
for i = 1, #progress, 2 do
    local number = progress[i]
    local ended = redis.call('HEXISTS', key(id, 'images'), number) == 1
    if not ended and not redis.call('LPOS', key(id, 'waiting'), number) then
        charge(client, -cost_of(id, number))
        in_hand = in_hand - 1
    end
end
charge(client, -in_hand * cost_of(id, nil, 0))
redis.call('DEL', key(id, 'images'), key(id, 'frames'))
finish(unpack(ARGV, 1, 5))
return 1
