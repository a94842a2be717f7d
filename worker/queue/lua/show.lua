#!lua
-- Shows what a shard's images will look like, and what they look like by now, for a while.
-- job id, now, shard number, pixels of the estimates, pixels of the chains
-- luacheck: read_globals key over tell_progress

local id = ARGV[1]
if over(id) then return end
for place, what in ipairs({'previews', 'chains'}) do
    redis.call('HSET', key(id, what), ARGV[3], ARGV[3 + place])
    redis.call('EXPIRE', key(id, what), 30)
end
tell_progress(id, 'preview', ARGV[2], 0.15)
