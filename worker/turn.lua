#!lua
-- Whose turn it is to look after the queue: answers 1 to one of all who ask within some seconds.
-- When it was somebody's last; seconds
-- luacheck: read_globals clock

local now = clock()
if now - (redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], string.format('%.6f', now))
return 1
