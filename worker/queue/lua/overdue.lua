#!lua flags=allow-oom
-- Jobs whose deadline has passed: some of them, or one if it is named and none else.
-- job id, or nothing
-- luacheck: read_globals clock

if redis.call('EXISTS', 'scoreserve:deadlines') == 0 then return {} end
local now = clock()
if not ARGV[1] then
    return redis.call('ZRANGEBYSCORE', 'scoreserve:deadlines', '-inf', string.format('%.6f', now), 'LIMIT', 0, 10)
end
local passes = redis.call('ZSCORE', 'scoreserve:deadlines', ARGV[1])
return passes and tonumber(passes) <= now and {ARGV[1]} or {}
