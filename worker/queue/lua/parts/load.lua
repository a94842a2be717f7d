-- How much has been accepted and is still to do, in image-steps: of each client, and of all.
-- luacheck: read_globals key spend

local function load(client, image_steps)
    for _, who in ipairs({client, 'all'}) do
        if redis.call('HINCRBY', 'scoreserve:load', who, image_steps) <= 0 then
            redis.call('HDEL', 'scoreserve:load', who)
        end
    end
end
local function did(id, number, image_steps)
    local before = tonumber(redis.call('HGET', key(id, 'progress'), number) or '0') or 0
    redis.call('HSET', key(id, 'progress'), number, image_steps)
    local client = redis.call('HGET', key(id), 'client')
    load(client, before - image_steps)
    spend(client, 'image_steps', image_steps - before)
end

return load, did
