-- Which images a shard has. A job begins as one shard with all of them; whoever takes some of a shard leaves the others
-- as another, with the next number. What a release before wrote down has no ranges: its shards are of one size.
-- luacheck: read_globals key

local function range_of(id, number)
    local range = redis.call('HGET', key(id, 'ranges'), number)
    if not range then return nil, nil end
    local first, count = string.match(range, '^(%d+) (%d+)$')
    return tonumber(first), tonumber(count)
end
local function set_range(id, number, first, count, ttl)
    local data = '["scoreserve.fulfil",null,[],{"job_id":"%s","number":%d,"first":%d,"count":%d,"result_ttl":%d}]'
    redis.call('HSET', key(id, 'ranges'), number, string.format('%d %d', first, count))
    redis.call('HSET', 'rq:job:' .. id .. '-' .. number, 'data', string.format(data, id, number, first, count, ttl),
        'description', string.format('%d images of job %s', count, id))
end

return range_of, set_range
