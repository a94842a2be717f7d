-- Whose turn it is, of those that wait for some models: the client that has had least, and of its jobs the first. Of
-- those that have had as much it is the one that was behind, or else whose job has the earlier virtual finish. What a
-- client has had is never less than `now`, and who was behind has less than that in `served`: to go by `served` is to
-- go by both.
-- However many are taken, all that wait are looked at once. They are a heap, in which who has had a turn sinks, and
-- only who is on top is looked at again: what was found of a client that waits for several models may be too little by
-- now, but never too much. Whose job goes before is asked only where that decides.
-- luacheck: read_globals served

local function models_of(named)
    local models = cjson.decode(named)
    return models == cjson.null and redis.call('SMEMBERS', 'scoreserve:lines') or models
end
local function first_of(model, client)
    local id, place = unpack(redis.call('ZRANGE', 'scoreserve:line:' .. model .. ':' .. client, 0, 0, 'WITHSCORES'))
    return id, tonumber(place)
end
local function waiting_for(models)
    local all = {}
    for _, model in ipairs(models) do
        local clients = redis.call('SMEMBERS', 'scoreserve:lines:' .. model)
        for i = 1, #clients, 1000 do
            local some = {unpack(clients, i, math.min(i + 999, #clients))}
            for j, behind in ipairs(redis.call('ZMSCORE', 'scoreserve:served', unpack(some))) do
                all[#all + 1] = {model = model, client = some[j], behind = tonumber(behind or '0'), at = #all}
            end
        end
    end
    return all
end
local function place_of(one)
    if not one.place then one.id, one.place = first_of(one.model, one.client) end
    return one.place or math.huge
end
local function before(one, other)
    if one.behind ~= other.behind then return one.behind < other.behind end
    local place, of_other = place_of(one), place_of(other)
    if place ~= of_other then return place < of_other end
    return one.at < other.at
end
local function sink(heap, i)
    local one, size = heap[i], #heap
    while 2 * i <= size do
        local child = 2 * i
        if child < size and before(heap[child + 1], heap[child]) then child = child + 1 end
        if not before(heap[child], one) then break end
        heap[i], i = heap[child], child
    end
    heap[i] = one
end
local function in_turn(all)
    for i = math.floor(#all / 2), 1, -1 do sink(all, i) end
    return all
end
local function next_of(heap)
    while heap[1] do
        local one, place = heap[1], heap[1].place
        local had, behind = served(one.client)
        one.had, one.id, one.place = had, first_of(one.model, one.client)
        if one.id and behind == one.behind and one.place == (place or one.place) then return one end
        one.behind = behind
        if not one.id then
            heap[1] = heap[#heap]
            table.remove(heap)
        end
        if heap[1] then sink(heap, 1) end
    end
end

return models_of, first_of, waiting_for, in_turn, next_of
