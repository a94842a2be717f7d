-- The time of all who share this Redis, in seconds: that of its machine, but it never goes back. Where that is set back
-- this goes on from where it was. What is compared with a time later is kept by this clock and by no other, or a step
-- of some machine's clock would make it last for as long as the step.

local function clock()
    local seconds, micros = unpack(redis.call('TIME'))
    local last, ahead = unpack(redis.call('HMGET', 'scoreserve:clock', 'last', 'ahead'))
    local now = seconds + micros / 1e6 + (ahead or 0)
    if last and now < tonumber(last) then
        redis.call('HSET', 'scoreserve:clock', 'ahead', string.format('%.6f', (ahead or 0) + last - now))
        now = tonumber(last)
    end
    if not last or now >= last + 1 then  -- as exactly as matters, and not with every call
        redis.call('HSET', 'scoreserve:clock', 'last', string.format('%.6f', now))
    end
    return now
end

return clock
