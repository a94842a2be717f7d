#!lua
-- Makes a lease last from now on; one that is lost is not taken again.
-- RQ's registry of started jobs; the lease, seconds
-- luacheck: read_globals hold

hold(KEYS[1], ARGV[1], tonumber(ARGV[2]))
