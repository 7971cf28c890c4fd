-- Keep the breach of an execution, once. It comes again if a reply was lost, or from the worker if the horse died
-- before it could say that the breach is kept: the last one replaces the one before.
-- KEYS: 1 breaches, 2 run
-- ARGV: 1 execution id, 2 breach, 3 how many are kept, 4 how many with their evidence, 5... fields of the evidence
if redis.call('HGET', KEYS[2], 'breach_of') == ARGV[1] then
  redis.call('LPOP', KEYS[1])
else
  redis.call('HSET', KEYS[2], 'breach_of', ARGV[1])
  redis.call('HINCRBY', KEYS[2], 'breaches', 1)
end
redis.call('LPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
local older = redis.call('LINDEX', KEYS[1], ARGV[4])
if older then
  local breach = cjson.decode(older)
  for i = 5, #ARGV do
    breach[ARGV[i]] = nil
  end
  redis.call('LSET', KEYS[1], ARGV[4], cjson.encode(breach))
end
return 1
