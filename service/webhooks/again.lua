#!lua flags=allow-oom
-- Makes a webhook due again, unless it is no more.
-- job id, seconds from now
-- luacheck: read_globals clock

redis.call('ZADD', 'scoreserve:webhooks', 'XX', string.format('%.6f', clock() + ARGV[2]), ARGV[1])
