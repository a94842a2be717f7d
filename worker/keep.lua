#!lua
-- Makes a lease last from now on; one that is lost is not taken again.
-- RQ's registry of started jobs; the lease, seconds
-- luacheck: read_globals clock

redis.call('ZADD', KEYS[1], 'XX', string.format('%.6f', clock() + ARGV[2]), ARGV[1])
