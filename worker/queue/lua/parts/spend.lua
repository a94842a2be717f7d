-- What each key has spent, for who runs the service. Without keys nothing is counted.

local function spend(client, what, amount)
    local id = string.match(client, '^key/(%x+)$')
    if id and amount ~= 0 then redis.call('HINCRBY', 'scoreserve:spent', id .. ':' .. what, amount) end
end

return spend
