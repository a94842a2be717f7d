#!lua flags=allow-oom
-- Jobs whose deadline has passed, some of them.
-- luacheck: read_globals clock

if redis.call('EXISTS', 'scoreserve:deadlines') == 0 then return {} end
return redis.call('ZRANGEBYSCORE', 'scoreserve:deadlines', '-inf', string.format('%.6f', clock()), 'LIMIT', 0, 10)
