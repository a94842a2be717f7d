-- Some of the jobs that have not ended: of each its id, client, priority, virtual finish, image-steps to go, and
-- whether it has begun.
-- the first and the last, by place among them
-- luacheck: read_globals key over

local found = {}
for _, id in ipairs(redis.call('ZRANGE', 'scoreserve:active', ARGV[1], ARGV[2])) do
    local job, done = key(id), 0
    local client, priority, finish, created, steps, started, stored
    if not over(id) then
        client, priority, finish, created, steps, started, stored = unpack(redis.call(
            'HMGET', job, 'client', 'priority', 'virtual_finish', 'created_at', 'image_steps', 'started_at', 'done'
        ))
    end
    if started then
        done = tonumber(stored or '0')
        for _, of_shard in ipairs(redis.call('HVALS', key(id, 'progress'))) do
            done = done + (tonumber(of_shard) or 0)
        end
    end
    if client then
        found[#found + 1] = {id, client, priority, finish or created, math.max(0, steps - done), started and 1 or 0}
    end
end
return found
