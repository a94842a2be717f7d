-- A job that has ended stays ended, whoever comes late. One whose record is damaged is as good as ended: what others
-- count with is there, or nothing is done for it (mend.lua ends it).

local function key(id, what) return 'scoreserve:job:' .. id .. (what and ':' .. what or '') end
local least = {[4] = 1, [5] = 1, [9] = 1, [10] = 1, [11] = 1}  -- image-steps, shards, their size, images, the largest
local function over(id)
    local job = redis.pcall('HMGET', key(id), 'ended_at', 'client', 'model', 'image_steps', 'shards', 'weight', 'rank',
        'created_at', 'shard_size', 'count', 'largest', 'done')
    if job.err or job[1] or not job[2] or not job[3] then return true end
    for field = 4, 12 do
        local number = tonumber(job[field])
        local lacking = field > 9 and not job[field]  -- in what releases before wrote down, and before anything is done
        if not lacking and (not number or number ~= number) then return true end
        if number and number < (least[field] or -math.huge) then return true end
    end
    return tonumber(job[5]) > 1e6 or tonumber(job[6]) <= 0
end

return key, over
