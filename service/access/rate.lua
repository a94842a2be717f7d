#!lua flags=allow-oom
-- The generic cell rate algorithm, on the clock of Redis: a bucket of as many requests as are allowed a minute, which
-- fills again evenly. Answers with seconds to wait (0 if allowed), requests left, and seconds until the bucket is full.
-- Where Redis is full it goes on: who may not ask cannot cancel either.
-- The bucket; requests, seconds

local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
local window = tonumber(ARGV[2])
local each = window / ARGV[1]
local full_at = tonumber(redis.call('GET', KEYS[1]) or '0')
full_at = math.min(math.max(now, full_at), now + window)  -- later it would only be where the clock was set back
local wait = full_at + each - now - window
if wait > 1e-6 then return {tostring(wait), 0, tostring(full_at - now)} end
full_at = full_at + each
redis.call('SET', KEYS[1], string.format('%.17g', full_at), 'PX', math.max(1, math.ceil((full_at - now) * 1000)))
return {'0', math.floor((window - (full_at - now)) / each + 1e-6), tostring(full_at - now)}
