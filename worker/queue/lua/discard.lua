-- Removes shards of a job that has ended from RQ, but for the number to keep.
-- RQ's registries of started, finished and failed jobs; job id, the first number, the one after the last, number to
-- keep or -1

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
