"""What has to happen in Redis at once or not at all, as Lua. Torch-free.

Each script names its arguments. Where Redis is full, one that begins with #!lua is refused as a whole, and never stops
in its middle.
"""

from worker.queue.lua import FINISH, LINES, LOAD, NEXT, OVER, TELL

# Ends a job short of its result, even where Redis is full: to cancel is to make room. What was in hand of it was
# charged for in full, and is now for what is done. Answers 0 if it had ended.
# job id, state, now, time to live, reason
END = (
    "#!lua flags=allow-oom"
    + LINES
    + TELL
    + FINISH
    + """
local id = ARGV[1]
if over(id) then return 0 end
local _, client = line_of(id)
local elsewhere = redis.call('HLEN', key(id, 'images')) + redis.call('LLEN', key(id, 'waiting'))
local in_hand, progress = redis.call('HGET', key(id), 'shards') - elsewhere, redis.call('HGETALL', key(id, 'progress'))
for i = 1, #progress, 2 do
    local number = progress[i]
    local ended = redis.call('HEXISTS', key(id, 'images'), number) == 1
    if not ended and not redis.call('LPOS', key(id, 'waiting'), number) then
        charge(client, -cost_of(id, number))
        in_hand = in_hand - 1
    end
end
charge(client, -in_hand * cost_of(id, nil, 0))
redis.call('DEL', key(id, 'images'), key(id, 'frames'))
finish(unpack(ARGV, 1, 5))
return 1
"""
)

# Stores a shard's images once, and ends the job with its last shard. Answers 2 for that one, 0 if nobody wants it.
# job id, state, now, time to live, reason, shard number, images, image-steps, number of images, frames or nothing
STORE = (
    "#!lua"
    + LINES
    + TELL
    + FINISH
    + """
local id, number = ARGV[1], ARGV[6]
if over(id) then return 0 end
if redis.call('HSETNX', key(id, 'images'), number, ARGV[7]) == 0 then return 0 end
if (ARGV[10] or '') ~= '' then redis.call('HSET', key(id, 'frames'), number, ARGV[10]) end
did(id, number, ARGV[8])
redis.call('HDEL', key(id, 'state'), number)
redis.call('HDEL', key(id, 'sigma'), number)
redis.call('HINCRBY', 'scoreserve:totals', 'images', ARGV[9])
redis.call('HINCRBY', 'scoreserve:totals', 'image_steps', ARGV[8])
if redis.call('HLEN', key(id, 'images')) < tonumber(redis.call('HGET', key(id), 'shards')) then return 1 end
finish(unpack(ARGV, 1, 5))
return 2
"""
)

# Writes down how far a shard is, and what was saved of it. Answers 0 if its job has ended or its lease is lost, since
# then somebody else tells how far it is; and 2 if somebody wants to see previews.
# job id, now, shard number, image-steps, saved state or nothing, noise level or nothing; RQ's registry of started jobs
# and the lease that should be in it, or neither
PROGRESS = (
    "#!lua"
    + LINES
    + LOAD
    + TELL
    + """
local id, number = ARGV[1], ARGV[3]
if over(id) or (ARGV[7] and not redis.call('ZSCORE', ARGV[7], ARGV[8])) then return 0 end
local pause = redis.call('HSETNX', key(id), 'started_at', ARGV[2]) == 1 and 0 or 0.25
did(id, number, ARGV[4])
set_clock(id, number)
if ARGV[5] ~= '' then redis.call('HSET', key(id, 'state'), number, ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', key(id, 'sigma'), number, ARGV[6]) end
tell_progress(id, 'progress', ARGV[2], pause)
return 1 + redis.call('EXISTS', key(id, 'watched'))
"""
)

# Shows what a shard's images look like by now, for a while.
# job id, now, shard number, pixels
SHOW = (
    "#!lua"
    + OVER
    + TELL
    + """
local id = ARGV[1]
if over(id) then return end
redis.call('HSET', key(id, 'previews'), ARGV[3], ARGV[4])
redis.call('EXPIRE', key(id, 'previews'), 30)
tell_progress(id, 'preview', ARGV[2], 0.45)
"""
)

# Accepts a job, unless that would be more than may be in flight: writes it down, and its shards for RQ, and puts it in
# its client's line. Answers with what stands against it ('client', 'queue' or 'jobs'; else ''), then with what was in
# flight before: image-steps of the client, image-steps of all, jobs. If the request's key was used before, it answers
# 'before', and with what is known under the key: id of the job, and fingerprint.
# RQ's queue, RQ's set of queues; as JSON what belongs to the job alone: its id, now, client, image-steps, and the most
# that may be in flight, or -1: image-steps of the client, image-steps of all, jobs; number of images, shard size,
# shards, time to live, deadline or '', fingerprint of a request that is to be accepted once, or '', now as RQ has it;
# then fields and values of the job's record as JSON, and those of RQ's record of every shard
ACCEPT = (
    "#!lua"
    + LINES
    + LOAD
    + TELL
    + """
local own, record, rq_record, fields = cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), {}
local id, now, client, steps = own[1], own[2], own[3], tonumber(own[4])
local most_of_client, most_of_all, most_jobs = tonumber(own[5]), tonumber(own[6]), tonumber(own[7])
local count, size, shards, ttl = tonumber(own[8]), tonumber(own[9]), tonumber(own[10]), own[11]
local deadline, fingerprint, rq_now = own[12], own[13], own[14]
for i = 1, #record, 2 do fields[record[i]] = record[i + 1] end
local once = fields.once and 'scoreserve:once:' .. fields.once
local before = once and redis.call('GET', once)
if before and redis.call('EXISTS', key(string.match(before, '^%S+'))) == 1 then return {'before', before} end
local of_client = tonumber(redis.call('HGET', 'scoreserve:load', client) or '0')
local of_all = tonumber(redis.call('HGET', 'scoreserve:load', 'all') or '0')
local jobs = redis.call('ZCARD', 'scoreserve:active')
local against = ''
if most_of_client >= 0 and of_client + steps > most_of_client then against = 'client'
elseif most_of_all >= 0 and of_all + steps > most_of_all then against = 'queue'
elseif most_jobs >= 0 and jobs >= most_jobs then against = 'jobs' end
if against ~= '' then return {against, of_client, of_all, jobs} end
if once then redis.call('SET', once, id .. ' ' .. fingerprint) end
redis.call('HSET', key(id), unpack(record))
if deadline ~= '' then
    redis.call('HSET', key(id), 'deadline', deadline)
    redis.call('ZADD', 'scoreserve:deadlines', deadline, id)
end
redis.call('ZADD', 'scoreserve:active', now, id)
redis.call('ZADD', 'scoreserve:client:' .. client .. ':unended', now, id)
redis.call('HINCRBY', 'scoreserve:totals', 'jobs_accepted', 1)
load(client, steps)
redis.call('SADD', KEYS[2], KEYS[1])
for number = 0, shards - 1 do
    local shard, first = id .. '-' .. number, number * size
    local images = math.min(size, count - first)
    local data = '["scoreserve.fulfil",null,[],{"job_id":"%s","number":%d,"first":%d,"count":%d,"result_ttl":%d}]'
    redis.call('HSET', 'rq:job:' .. shard, unpack(rq_record))
    redis.call('HSET', 'rq:job:' .. shard, 'data', string.format(data, id, number, first, images, ttl),
        'description', images .. ' images of job ' .. id, 'created_at', rq_now, 'enqueued_at', rq_now)
    redis.call('RPUSH', KEYS[1], shard)
    redis.call('RPUSH', key(id, 'waiting'), number)
end
join(id)
tell_progress(id, 'progress', 0, 0)
return {'', of_client, of_all, jobs}
"""
)

# Puts a shard back to the front of its job and of RQ's queue; its client is not charged for it a second time.
# RQ's queue; job id, shard number
AGAIN = (
    "#!lua"
    + LINES
    + """
again(KEYS[1], ARGV[1], ARGV[2])
"""
)

# Takes the next shard, and answers with its id. Until it is started it stands in `taken`, so that a worker that dies in
# between loses nothing.
# RQ's queue; now, the models that shards may be taken of, as JSON: a list, or null for all
TAKE = (
    "#!lua"
    + LINES
    + NEXT
    + """
while true do
    local best = next_of(models_of(ARGV[2]))
    if not best then return false end
    local id, number = best.id, redis.call('LPOP', key(best.id, 'waiting'))
    if over(id) or redis.call('LLEN', key(id, 'waiting')) == 0 then leave(id, best.model, best.client) end
    if number and not over(id) then
        redis.call('SET', 'scoreserve:now', string.format('%.17g', best.had))
        local waiting, many, less = {}, 10, string.format('(%.17g', best.had)
        for _, model in ipairs(redis.call('SMEMBERS', 'scoreserve:lines')) do
            for _, client in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. model)) do
                waiting[client], many = true, many + 1
            end
        end
        for _, client in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:served', '-inf', less, 'LIMIT', 0, many)) do
            if not waiting[client] then redis.call('ZREM', 'scoreserve:served', client) end
        end
        charge(best.client, cost_of(id, number))
        redis.call('LREM', KEYS[1], 0, id .. '-' .. number)
        redis.call('ZADD', 'scoreserve:taken', ARGV[1], id .. '-' .. number)
        return id .. '-' .. number
    end
end
"""
)

# Which of the shards that a worker has in hand should make way: for the next that waits one whose client has had more,
# if it is charged only for what is done of the shard; for a more urgent one, any of the same client. Answers with its
# place among those that were named, from 0 on, and the model of the one that waits, or with nothing.
# models that the one that waits may be of, as in TAKE; then of each shard in hand its job id, and image-steps done
MAKE_WAY = (
    "#!lua"
    + LINES
    + NEXT
    + """
local models, most, found, model = models_of(ARGV[1])
local best = next_of(models)
if not best then return false end
for i = 2, #ARGV, 2 do
    local id = ARGV[i]
    if not over(id) then
        local client, rank = unpack(redis.call('HMGET', key(id), 'client', 'rank'))
        local had = served(client) - cost_of(id, nil, ARGV[i + 1])
        local for_model = had > best.had and best.model
        for _, model in ipairs(models) do
            local _, place = first_of(model, client)
            if place and math.floor(place / 1e10) < tonumber(rank) then for_model = for_model or model end
        end
        if for_model and (not most or had > most) then most, found, model = had, i / 2 - 1, for_model end
    end
end
return found and {found, model}
"""
)

# Puts back what dead workers held: shards whose lease is over, each for one retry, and those that were taken and never
# started. Answers with the ids of those that have no retry left.
# RQ's queue, RQ's registry of started jobs; now, taken before
RECLAIM = (
    "#!lua"
    + LINES
    + """
local dead = {}
local function put_back(shard)
    local id, number = string.match(shard, '^(.*)-(%d+)$')
    if over(id) then
        redis.call('DEL', 'rq:job:' .. shard)
    else
        redis.call('HSET', 'rq:job:' .. shard, 'status', 'queued')
        again(KEYS[1], id, number)
    end
end
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 1000)) do
    local shard, execution = string.match(lease, '^(.*):(.*)$')
    local job, executions = 'rq:job:' .. shard, 'rq:executions:' .. shard
    local latest = redis.call('EXISTS', executions) == 0 or redis.call('ZSCORE', executions, execution)
    redis.call('ZREM', KEYS[2], lease)
    redis.call('DEL', 'rq:execution:' .. lease)
    redis.call('ZREM', executions, execution)
    if latest and redis.call('HGET', job, 'status') == 'started' then
        if tonumber(redis.call('HGET', job, 'retries_left') or '0') > 0 then
            redis.call('HINCRBY', job, 'retries_left', -1)
            put_back(shard)
        else
            table.insert(dead, shard)
        end
    end
end
for _, shard in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:taken', '-inf', ARGV[2])) do
    redis.call('ZREM', 'scoreserve:taken', shard)
    if redis.call('HGET', 'rq:job:' .. shard, 'status') == 'queued' then put_back(shard) end
end
return dead
"""
)

# Finds the shards of a job that are nowhere, as after RQ's own tools cleaned up, and puts them back. Answers with the
# ids of those that RQ has given up.
# RQ's queue, RQ's registry of started jobs; job id
REPAIR = (
    "#!lua"
    + LINES
    + """
local id = ARGV[1]
if over(id) then return {} end
local held, waits, dead = {}, {}, {}
for _, number in ipairs(redis.call('LRANGE', key(id, 'waiting'), 0, -1)) do waits[number] = true end
for _, lease in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do held[string.match(lease, '^(.*):')] = true end
for number = 0, tonumber(redis.call('HGET', key(id), 'shards')) - 1 do
    local shard = id .. '-' .. number
    if not held[shard] and redis.call('HEXISTS', key(id, 'images'), number) == 0
        and not waits[tostring(number)]
        and not redis.call('ZSCORE', 'scoreserve:taken', shard) then
        local status = redis.call('HGET', 'rq:job:' .. shard, 'status')
        if status == 'queued' or status == 'started' then
            redis.call('HSET', 'rq:job:' .. shard, 'status', 'queued')
            again(KEYS[1], id, number)
        else
            table.insert(dead, shard)
        end
    end
end
return dead
"""
)

# Claims the webhooks that are due: they are due again when the lease is over. Answers with a list for each: job id,
# webhook, and which attempt this is; the webhook is nothing where the job is forgotten, which is the last of it.
# now, end of the lease, how many at most
CLAIM_WEBHOOKS = (
    "#!lua flags=allow-oom"
    + OVER
    + """
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'scoreserve:webhooks', '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
    local webhook = redis.call('HGET', key(id), 'webhook')
    if webhook then
        redis.call('ZADD', 'scoreserve:webhooks', ARGV[2], id)
        table.insert(claimed, {id, webhook, redis.call('HINCRBY', key(id), 'webhook_attempts', 1)})
    else
        redis.call('ZREM', 'scoreserve:webhooks', id)
        table.insert(claimed, {id, false, 0})
    end
end
return claimed
"""
)

# Removes all shards of a job from RQ's queue: one by one, or in one pass where they are a good part of it.
# RQ's queue; job id, number of shards
UNQUEUE = """#!lua flags=allow-oom
if ARGV[2] * 16 <= redis.call('LLEN', KEYS[1]) then
    for number = 0, ARGV[2] - 1 do redis.call('LREM', KEYS[1], 1, ARGV[1] .. '-' .. number) end
    return
end
local waiting, others = redis.call('LRANGE', KEYS[1], 0, -1), {}
for _, shard in ipairs(waiting) do
    if string.match(shard, '^(.*)-%d+$') ~= ARGV[1] then others[#others + 1] = shard end
end
if #others == #waiting then return end
redis.call('DEL', KEYS[1])
for first = 1, #others, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(others, first, math.min(first + 999, #others)))
end
"""

# Removes shards of a job that has ended from RQ, but for the number to keep.
# RQ's registries of started, finished and failed jobs; job id, the first number, the one after the last, number to keep
# or -1
DISCARD = """
for number = tonumber(ARGV[2]), ARGV[3] - 1 do
    local shard = ARGV[1] .. '-' .. number
    local job, executions = 'rq:job:' .. shard, 'rq:executions:' .. shard
    if redis.call('EXISTS', job) == 1 and number ~= tonumber(ARGV[4]) then
        for _, execution in ipairs(redis.call('ZRANGE', executions, 0, -1)) do
            redis.call('DEL', 'rq:execution:' .. shard .. ':' .. execution)
            redis.call('ZREM', KEYS[1], shard .. ':' .. execution)
        end
        redis.call('ZREM', KEYS[2], shard)
        redis.call('ZREM', KEYS[3], shard)
        redis.call('ZREM', 'scoreserve:taken', shard)
        redis.call('DEL', job, executions, 'rq:results:' .. shard)
    end
end
"""
