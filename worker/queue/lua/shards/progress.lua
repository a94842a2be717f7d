#!lua
-- Writes down how far a shard is, and what was saved of it, and makes its lease last. Answers 0 if its job has ended,
-- and -1 if its lease is lost, since then somebody else tells how far it is; and 2 if somebody wants to see previews.
-- job id, now, shard number, image-steps, saved state or nothing, noise level or nothing, when the shard was begun or
-- nothing for now; RQ's registry of started jobs and the lease that should be in it, or neither, and for how many
-- seconds it is to last, or nothing to leave it as it is
-- luacheck: read_globals key over did tell_progress set_clock hold

local id, number = ARGV[1], ARGV[3]
if over(id) then return 0 end
if ARGV[10] and not hold(ARGV[8], ARGV[9], tonumber(ARGV[10])) then return -1 end
if ARGV[8] and not redis.call('ZSCORE', ARGV[8], ARGV[9]) then return -1 end
local begun = (ARGV[7] or '') ~= '' and ARGV[7] or ARGV[2]
local pause = redis.call('HSETNX', key(id), 'started_at', begun) == 1 and 0 or 0.25
did(id, number, ARGV[4])
set_clock(id, number)
if ARGV[5] ~= '' then redis.call('HSET', key(id, 'state'), number, ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', key(id, 'sigma'), number, ARGV[6]) end
tell_progress(id, 'progress', ARGV[2], pause)
return 1 + redis.call('EXISTS', key(id, 'watched'))
