#!lua flags=allow-oom
-- Makes a webhook due again, unless it is no more.
-- job id, seconds from now, how many attempts were none
-- luacheck: read_globals clock key

if redis.call('HEXISTS', key(ARGV[1]), 'webhook_attempts') == 1 then
    redis.call('HINCRBY', key(ARGV[1]), 'webhook_attempts', -ARGV[3])
end
redis.call('ZADD', 'scoreserve:webhooks', 'XX', string.format('%.6f', clock() + ARGV[2]), ARGV[1])
