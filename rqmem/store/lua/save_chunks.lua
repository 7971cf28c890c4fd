-- Save finished chunks, unless another execution owns the job by now (fencing). Repeated because a reply was lost, it
-- changes nothing.
-- KEYS: running, run, results
-- ARGV: 1 job id, 2 execution id, 3 stage, 4 cursor, 5 items of the stage so far, 6 seconds to live, 7 results,
--       8 how many chunks, 9 size of the next chunk, 10 what is known of it
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or cjson.decode(owner)['execution'] ~= ARGV[2] then
  return 0
end
if redis.call('HGET', KEYS[2], 'items:' .. ARGV[3]) == ARGV[5] then
  return 1
end
redis.call('HSET', KEYS[2], 'cursor:' .. ARGV[3], ARGV[4], 'items:' .. ARGV[3], ARGV[5],
  'chunk_size:' .. ARGV[3], ARGV[9], 'chunk_state:' .. ARGV[3], ARGV[10])
redis.call('HINCRBY', KEYS[2], 'chunks', ARGV[8])
redis.call('HINCRBY', KEYS[2], 'execution_chunks', ARGV[8])
redis.call('EXPIRE', KEYS[2], ARGV[6])
if ARGV[7] ~= '' then
  redis.call('RPUSH', KEYS[3], ARGV[3] .. ':' .. ARGV[7])
  redis.call('EXPIRE', KEYS[3], ARGV[6])
end
return 1
