-- A job that has ended stays ended, whoever comes late.

local function key(id, what) return 'scoreserve:job:' .. id .. (what and ':' .. what or '') end
local function over(id)
    return redis.call('HEXISTS', key(id), 'ended_at') == 1 or redis.call('EXISTS', key(id)) == 0
end

return key, over
