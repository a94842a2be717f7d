#!lua
-- Writes down how far a shard is, and what was saved of it. Answers 0 if its job has ended or its lease is lost, since
-- then somebody else tells how far it is; and 2 if somebody wants to see previews.
-- job id, now, shard number, image-steps, saved state or nothing, noise level or nothing, when the shard was begun or
-- nothing for now; RQ's registry of started jobs and the lease that should be in it, or neither
-- luacheck: read_globals key over did tell_progress set_clock

local id, number = ARGV[1], ARGV[3]
if over(id) or (ARGV[8] and not redis.call('ZSCORE', ARGV[8], ARGV[9])) then return 0 end
local begun = (ARGV[7] or '') ~= '' and ARGV[7] or ARGV[2]
local pause = redis.call('HSETNX', key(id), 'started_at', begun) == 1 and 0 or 0.25
did(id, number, ARGV[4])
set_clock(id, number)
if ARGV[5] ~= '' then redis.call('HSET', key(id, 'state'), number, ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', key(id, 'sigma'), number, ARGV[6]) end
tell_progress(id, 'progress', ARGV[2], pause)
return 1 + redis.call('EXISTS', key(id, 'watched'))
