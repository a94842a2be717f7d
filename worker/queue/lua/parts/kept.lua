-- How many bytes of images each client has kept: those of its jobs that have not ended, and of those that have, until
-- they are forgotten. A sorted set says when that is, in members that name their bytes; a hash has their sum.
-- luacheck: read_globals clock

local function kept_keys(client)
    local of_client = 'scoreserve:client:' .. client
    return of_client .. ':kept', of_client .. ':bytes'
end
local function unkeep(client, job)
    local jobs, sum = kept_keys(client)
    if redis.call('ZREM', jobs, job) == 1 then redis.call('HINCRBY', sum, 'sum', -string.match(job, '%d+$')) end
end
local function kept(client)
    local jobs, sum = kept_keys(client)
    local now = string.format('%.6f', clock())
    for _, job in ipairs(redis.call('ZRANGEBYSCORE', jobs, '-inf', now, 'LIMIT', 0, 1000)) do unkeep(client, job) end
    return tonumber(redis.call('HGET', sum, 'sum') or '0')
end
local function keep(client, id, bytes)
    local jobs, sum = kept_keys(client)
    redis.call('ZADD', jobs, 'inf', id .. ' ' .. bytes)
    redis.call('HINCRBY', sum, 'sum', bytes)
    for _, key in ipairs({jobs, sum}) do redis.call('PERSIST', key) end
end
local function keep_for(client, id, bytes, seconds)
    local jobs, sum = kept_keys(client)
    if bytes and seconds > 0 then
        redis.call('ZADD', jobs, 'XX', string.format('%.6f', clock() + seconds), id .. ' ' .. bytes)
    elseif bytes then
        unkeep(client, id .. ' ' .. bytes)
    end
    local last = redis.call('ZRANGE', jobs, -1, -1, 'WITHSCORES')[2]
    if not last then redis.call('DEL', sum) end
    if not last or last == 'inf' then return end
    for _, key in ipairs({jobs, sum}) do redis.call('EXPIRE', key, math.max(1, math.ceil(last - clock()))) end
end
local function room_in(client, bytes)
    local now, jobs = clock(), redis.call('ZRANGE', kept_keys(client), 0, 999, 'WITHSCORES')
    for i = 1, #jobs, 2 do
        bytes = bytes - string.match(jobs[i], '%d+$')
        if jobs[i + 1] == 'inf' then return -1 end
        if bytes <= 0 then return math.ceil(jobs[i + 1] - now) end
    end
    return -1
end

return kept, keep, keep_for, room_in
