#!lua flags=allow-oom
-- Claims the webhooks that are due: they are due again when the lease is over. Answers with a list for each: job id,
-- webhook, and which attempt this is; the webhook is nothing where the job is forgotten, which is the last of it.
-- seconds of the lease, how many at most
-- luacheck: read_globals clock key

if redis.call('EXISTS', 'scoreserve:webhooks') == 0 then return {} end
local claimed, now = {}, clock()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:webhooks', '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local webhook = redis.call('HGET', key(id), 'webhook')
    if webhook then
        redis.call('ZADD', 'scoreserve:webhooks', string.format('%.6f', now + ARGV[1]), id)
        table.insert(claimed, {id, webhook, redis.call('HINCRBY', key(id), 'webhook_attempts', 1)})
    else
        redis.call('ZREM', 'scoreserve:webhooks', id)
        table.insert(claimed, {id, false, 0})
    end
end
return claimed
