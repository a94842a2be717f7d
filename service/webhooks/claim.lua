#!lua flags=allow-oom
-- Claims the webhooks that are due: they are due again when the lease is over. Answers with a list for each: job id,
-- webhook, which attempt this is, and the client; the webhook is nothing where the job is forgotten, which is the last
-- of it. A client gets no more than its slots: as many again stay due, and the rest is put off, so that they do not
-- stand before those of others.
-- seconds of the lease, how many at most, how many at once of one client, how many are looked at, for how many seconds
-- the rest is put off, as JSON how many each client has under way
-- luacheck: read_globals clock key

if redis.call('EXISTS', 'scoreserve:webhooks') == 0 then return {} end
local most, slots, busy, waiting = tonumber(ARGV[2]), tonumber(ARGV[3]), cjson.decode(ARGV[6]), {}
local claimed, now = {}, clock()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:webhooks', '-inf', now, 'LIMIT', 0, ARGV[4])) do
    if #claimed == most then break end
    local webhook, client = unpack(redis.call('HMGET', key(id), 'webhook', 'client'))
    client = client or ''
    if not webhook then
        redis.call('ZREM', 'scoreserve:webhooks', id)
        table.insert(claimed, {id, false, 0, ''})
    elseif (busy[client] or 0) < slots then
        busy[client] = (busy[client] or 0) + 1
        redis.call('ZADD', 'scoreserve:webhooks', string.format('%.6f', now + ARGV[1]), id)
        table.insert(claimed, {id, webhook, redis.call('HINCRBY', key(id), 'webhook_attempts', 1), client})
    else
        waiting[client] = (waiting[client] or 0) + 1
        if waiting[client] > slots then
            redis.call('ZADD', 'scoreserve:webhooks', string.format('%.6f', now + ARGV[5]), id)
        end
    end
end
return claimed
