#!lua
-- Writes down when a key was used last, unless there is no such key any more.
-- Keys, when each was used last; id of the key, seconds since the epoch

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return end
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if tonumber(ARGV[2]) > before then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
