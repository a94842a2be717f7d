#!lua
-- Adds what a service has counted, once: it sends the same again, under the same number, where it has heard no answer.
-- What is spent, the number that was added last; that number, fields and amounts

if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 86400)
return 1
