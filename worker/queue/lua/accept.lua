#!lua
-- Accepts a job, unless that would be more than may be in flight: writes it down, and for RQ one shard with all of
-- its images, and puts it in its client's line. Answers with what stands against it ('drained', of its model,
-- 'client', 'queue', 'jobs' or 'kept'; else ''), then with what was in flight before: image-steps of the client,
-- image-steps of all, jobs; and bytes of images that the client has kept, and the seconds until there is room for the
-- job's, or -1 if nobody knows. If the request's key was used before, it answers 'before', and with what is known under
-- the key: id of the job, and fingerprint. A job that was accepted, of which the answer was lost, is accepted once.
-- RQ's queue, RQ's set of queues; as JSON what belongs to the job alone: its id, now, client, image-steps, and the most
-- that may be in flight, or -1: image-steps of the client, image-steps of all, jobs; number of images, time to
-- live, deadline or '', fingerprint of a request that is to be accepted once, or '', now as RQ has it;
-- then fields and values of the job's record as JSON, and those of RQ's record of a shard; the most bytes of images
-- that the client may have kept, or -1
-- luacheck: read_globals clock key load tell_progress join spend kept keep room_in set_range

local own, record, rq_record, fields = cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), {}
local id, now, client, steps = own[1], own[2], own[3], tonumber(own[4])
local most_of_client, most_of_all, most_jobs = tonumber(own[5]), tonumber(own[6]), tonumber(own[7])
local count, ttl, deadline, fingerprint, rq_now = tonumber(own[8]), own[9], own[10], own[11], own[12]
for i = 1, #record, 2 do fields[record[i]] = record[i + 1] end
if redis.call('EXISTS', key(id)) == 1 then return {'', 0, 0, 0} end
local once = fields.once and 'scoreserve:once:' .. fields.once
local before = once and redis.call('GET', once)
if before and redis.call('EXISTS', key(string.match(before, '^%S+'))) == 1 then return {'before', before} end
local of_client = tonumber(redis.call('HGET', 'scoreserve:load', client) or '0')
local of_all = tonumber(redis.call('HGET', 'scoreserve:load', 'all') or '0')
local jobs = redis.call('ZCARD', 'scoreserve:active')
local against = ''
if redis.call('HEXISTS', 'scoreserve:drained', fields.model) == 1 then against = 'drained'
elseif most_of_client >= 0 and of_client + steps > most_of_client then against = 'client'
elseif most_of_all >= 0 and of_all + steps > most_of_all then against = 'queue'
elseif most_jobs >= 0 and jobs >= most_jobs then against = 'jobs' end
local bytes, most_bytes = kept(client), tonumber(ARGV[4])
local too_many = most_bytes < 0 and 0 or bytes + fields.bytes - most_bytes
if against == '' and too_many > 0 then against = 'kept' end
if against ~= '' then
    return {against, of_client, of_all, jobs, bytes, too_many > 0 and room_in(client, too_many) or 0}
end
if once then redis.call('SET', once, id .. ' ' .. fingerprint) end
redis.call('HSET', key(id), unpack(record))
if deadline ~= '' then
    redis.call('HSET', key(id), 'deadline', deadline)
    redis.call('ZADD', 'scoreserve:deadlines', string.format('%.6f', clock() + deadline - now), id)
end
redis.call('ZADD', 'scoreserve:active', now, id)
redis.call('ZADD', 'scoreserve:client:' .. client .. ':unended', now, id)
redis.call('HINCRBY', 'scoreserve:totals', 'jobs_accepted', 1)
load(client, steps)
spend(client, 'jobs', 1)
keep(client, id, fields.bytes)
redis.call('SADD', KEYS[2], KEYS[1])
redis.call('HSET', 'rq:job:' .. id .. '-0', 'created_at', rq_now, 'enqueued_at', rq_now, unpack(rq_record))
set_range(id, 0, 0, count, ttl)
redis.call('RPUSH', KEYS[1], id .. '-0')
redis.call('RPUSH', key(id, 'waiting'), 0)
join(id)
tell_progress(id, 'progress', 0, 0)
return {'', of_client, of_all, jobs}
