#!lua
-- Which of the shards that a worker has in hand should make way: for the next that waits one whose client has had more,
-- if it is charged only for what is done of the shard; for one that goes before it, any of the same client. Answers
-- with its place among those that were named, from 0 on, and the model of the one that waits, or with nothing.
-- models that the one that waits may be of, as in TAKE; then of each shard in hand its job id, its number, and
-- image-steps done
-- luacheck: read_globals over served line_of cost_of models_of first_of waiting_for in_turn next_of

local models, most, found, model = models_of(ARGV[1])
local waiting, least, next_model, several = waiting_for(models), math.huge, nil, false
for _, one in ipairs(waiting) do
    if one.behind < least then least, next_model, several = one.behind, one.model, false end
    several = several or one.model ~= next_model and one.behind == least
end
if several then next_model = next_of(in_turn(waiting)).model end  -- else it does not matter whose job is older
if not next_model then return false end
least = math.max(least, tonumber(redis.call('GET', 'scoreserve:now') or '0'))
for i = 2, #ARGV, 3 do
    local id = ARGV[i]
    if not over(id) then
        local _, client, own = line_of(id)
        local had = served(client) - cost_of(id, ARGV[i + 1], ARGV[i + 2])
        local for_model = had > least and next_model
        for _, other in ipairs(models) do
            local _, place = first_of(other, client)
            if place and place < own then for_model = for_model or other end
        end
        if for_model and (not most or had > most) then most, found, model = had, (i - 2) / 3, for_model end
    end
end
return found and {found, model}
