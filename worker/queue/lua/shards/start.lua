#!lua
-- Begins the leases of shards that were taken and still wait, all at once. One that this worker has by RQ's record,
-- but does not hold, was started just now and only the answer was lost: its lease is begun anew. Answers of each
-- shard whether it is started now, RQ's record of it or nothing if something else lies there, and what was saved of
-- it; then of each of their jobs its id, its record and its progress, or nothing where something else lies; and
-- whether more shards wait.
-- RQ's registry of started jobs; the worker's name, now, now as RQ has it, seconds that a lease lasts; then of each
-- shard its id, that of its lease, and 1 if this worker holds it
-- luacheck: read_globals clock key

local name, now, rq_now, seconds = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local shards, jobs, seen = {}, {}, {}
local function read(...)
    local found = redis.pcall(...)
    return not (type(found) == 'table' and found.err) and found
end
local function begin(job, shard, lease)
    local execution, executions = 'rq:execution:' .. shard .. ':' .. lease, 'rq:executions:' .. shard
    redis.call('DEL', executions)  -- a dead worker's entry would keep RQ from deleting the job
    redis.call('HSET', execution, 'id', lease, 'created_at', now, 'last_heartbeat', now, 'worker_name', name)
    redis.call('EXPIRE', execution, seconds)
    redis.call('ZADD', executions, now + seconds + 60, lease)
    redis.call('EXPIRE', executions, seconds + 60)
    redis.call('ZADD', KEYS[1], string.format('%.6f', clock() + seconds), shard .. ':' .. lease)
    redis.call('HSET', job, 'status', 'started', 'started_at', rq_now, 'last_heartbeat', rq_now, 'worker_name', name)
    redis.call('PERSIST', job)
end
for i = 5, #ARGV, 3 do
    local shard, lease, held = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1'
    local job, id, number = 'rq:job:' .. shard, string.match(shard, '^(.*)-([^-]*)$')
    redis.call('ZREM', 'scoreserve:taken', shard)
    local record = read('HGETALL', job)
    local status, owner = unpack(record and redis.call('HMGET', job, 'status', 'worker_name') or {})
    local starts = status == 'queued' or (status == 'started' and owner == name and not held)
    if starts then
        begin(job, shard, lease)
        if not seen[id] then
            jobs[#jobs + 1] = {id, read('HGETALL', key(id)), read('HVALS', key(id, 'progress'))}
            seen[id] = true
        end
    end
    shards[#shards + 1] = {starts and 1 or 0, record, starts and read('HGET', key(id, 'state'), number)}
end
return {shards, jobs, redis.call('EXISTS', 'scoreserve:lines')}
