#!lua flags=allow-oom
-- Ends the jobs whose record is damaged or gone, though they have not ended, so that nothing waits for them. Answers
-- with their ids.
-- now, time to live, reason
-- luacheck: read_globals key over load

local damaged = {}
for _, id in ipairs(redis.call('ZRANGE', 'scoreserve:active', 0, -1)) do
    if over(id) then
        damaged[#damaged + 1] = id
        local record, done = redis.pcall('HMGET', key(id), 'client', 'image_steps'), 0
        local progress = redis.pcall('HVALS', key(id, 'progress'))
        for _, of_shard in ipairs(progress.err and {} or progress) do done = done + (tonumber(of_shard) or 0) end
        if record.err or not record[1] then
            redis.call('DEL', key(id))
        else
            redis.call('ZREM', 'scoreserve:client:' .. record[1] .. ':unended', id)
            load(record[1], math.min(0, done - (tonumber(record[2]) or 0)))
            redis.call('HSET', key(id), 'state', 'failed', 'ended_at', ARGV[1], 'error', ARGV[3])
            redis.call('EXPIRE', key(id), ARGV[2])
        end
        for _, what in ipairs({'waiting', 'state', 'sigma', 'previews', 'watched', 'images', 'frames', 'progress'}) do
            redis.call('DEL', key(id, what))
        end
        redis.call('EXPIRE', key(id, 'events'), ARGV[2])
        redis.call('ZREM', 'scoreserve:active', id)
        redis.call('ZREM', 'scoreserve:deadlines', id)
        redis.call('HINCRBY', 'scoreserve:totals', 'jobs_failed', 1)
        redis.call('PUBLISH', 'scoreserve:ended', id)
    end
end
if #damaged > 0 and redis.call('EXISTS', 'scoreserve:active') == 0 then
    redis.call('DEL', 'scoreserve:served', 'scoreserve:now', 'scoreserve:load')
end
return damaged
