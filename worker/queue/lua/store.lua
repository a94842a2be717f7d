#!lua
-- Stores a shard's images once, and ends the job with its last shard. Answers 2 for that one, 0 if nobody wants it.
-- job id, state, now, time to live, reason, shard number, images, image-steps, number of images, frames or nothing
-- luacheck: read_globals key over did finish spend range_of

local id, number = ARGV[1], ARGV[6]
if over(id) then return 0 end
if redis.call('HSETNX', key(id, 'images'), number, ARGV[7]) == 0 then return 0 end
if (ARGV[10] or '') ~= '' then redis.call('HSET', key(id, 'frames'), number, ARGV[10]) end
did(id, number, ARGV[8])
if range_of(id, number) then  -- a release that knows no ranges looks for what is done in `progress` alone
    redis.call('HINCRBY', key(id), 'done', ARGV[8])
    redis.call('HDEL', key(id, 'progress'), number)
end
redis.call('HDEL', key(id, 'state'), number)
redis.call('HDEL', key(id, 'sigma'), number)
redis.call('HINCRBY', 'scoreserve:totals', 'images', ARGV[9])
redis.call('HINCRBY', 'scoreserve:totals', 'image_steps', ARGV[8])
spend(redis.call('HGET', key(id), 'client'), 'images', tonumber(ARGV[9]))
if redis.call('HLEN', key(id, 'images')) < tonumber(redis.call('HGET', key(id), 'shards')) then return 1 end
finish(unpack(ARGV, 1, 5))
return 2
