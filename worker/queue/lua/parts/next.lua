-- Whose turn it is, of those that wait for some models: the client that has had least, and of its jobs the first. Of
-- those that have had as much it is the one that was behind, or else whose job is older.
-- luacheck: read_globals served

local function models_of(named)
    local models = cjson.decode(named)
    return models == cjson.null and redis.call('SMEMBERS', 'scoreserve:lines') or models
end
local function first_of(model, client)
    local id, place = unpack(redis.call('ZRANGE', 'scoreserve:line:' .. model .. ':' .. client, 0, 0, 'WITHSCORES'))
    return id, tonumber(place)
end
local function next_of(models)
    local best
    for _, model in ipairs(models) do
        for _, client in ipairs(redis.call('SMEMBERS', 'scoreserve:lines:' .. model)) do
            local had, behind = served(client)
            local order = best and (had ~= best.had and had - best.had or behind - best.behind)
            if not best or order <= 0 then
                local id, place = first_of(model, client)
                if not best or order < 0 or place < best.place then
                    best = {had = had, behind = behind, place = place, id = id, model = model, client = client}
                end
            end
        end
    end
    return best
end

return models_of, first_of, next_of
