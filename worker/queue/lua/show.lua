#!lua
-- Shows what a shard's images look like by now, for a while.
-- job id, now, shard number, pixels
-- luacheck: read_globals key over tell_progress

local id = ARGV[1]
if over(id) then return end
redis.call('HSET', key(id, 'previews'), ARGV[3], ARGV[4])
redis.call('EXPIRE', key(id, 'previews'), 30)
tell_progress(id, 'preview', ARGV[2], 0.45)
