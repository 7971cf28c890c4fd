-- Record a finished chunk, unless another execution owns the job by now (fencing).
-- KEYS: running, run, results   ARGV: job id, execution id, stage, cursor, items, seconds to live, results
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or cjson.decode(owner)['execution'] ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[2], 'cursor:' .. ARGV[3], ARGV[4])
redis.call('HINCRBY', KEYS[2], 'items:' .. ARGV[3], ARGV[5])
redis.call('HINCRBY', KEYS[2], 'chunks', 1)
redis.call('HINCRBY', KEYS[2], 'execution_chunks', 1)
redis.call('EXPIRE', KEYS[2], ARGV[6])
if ARGV[7] ~= '' then
  redis.call('RPUSH', KEYS[3], ARGV[3] .. ':' .. ARGV[7])
  redis.call('EXPIRE', KEYS[3], ARGV[6])
end
return 1
