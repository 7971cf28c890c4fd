-- Keep the breach of an execution, once. It comes again where a reply was lost, and from the worker where the horse
-- died before it could say that the breach is kept: the last one replaces the one before.
-- KEYS: 1 breaches, 2 run   ARGV: 1 execution id, 2 breach, 3 how many are kept
if redis.call('HGET', KEYS[2], 'breach_of') == ARGV[1] then
  redis.call('LPOP', KEYS[1])
else
  redis.call('HSET', KEYS[2], 'breach_of', ARGV[1])
  redis.call('HINCRBY', KEYS[2], 'breaches', 1)
end
redis.call('LPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
return 1
