-- End the execution of a job that has split. The job waits for its children; if all have ended already, it is queued
-- again at once. Refused (0) unless the given execution still owns the job.
-- KEYS: 1 running, 2 job, 3 started registry, 4 execution, 5 job's executions, 6 worker's executions,
--       7 intermediate queue, 8 queue, 9 run, 10 set of queues, 11 deferred registry,
--       12... all keys that expire with the run
-- ARGV: 1 job id, 2 execution id, 3 children, 4 now (text), 5 now (epoch), 6 ids of children (JSON), 7 the first,
--       8 seconds that run may wait, 9 one more than the highest number of a child
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or cjson.decode(owner)['execution'] ~= ARGV[2] then
  return 0
end
local composite = ARGV[1] .. ':' .. ARGV[2]
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], composite)
redis.call('DEL', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('SREM', KEYS[6], composite)
redis.call('LREM', KEYS[7], 0, ARGV[1])
redis.call('PERSIST', KEYS[2])
if redis.call('HGET', KEYS[9], 'split_sealed') == '1' then
  -- Some children run again: their rate counts from now on.
  redis.call('HSET', KEYS[9], 'split_started_at', ARGV[5],
    'split_ended_before', redis.call('HGET', KEYS[9], 'split_ended') or 0)
end
redis.call('HSET', KEYS[9], 'split_sealed', 1, 'split_total', ARGV[3], 'split_end', ARGV[9], 'split_reported', 0)
redis.call('HSET', KEYS[2], 'dependency_ids', ARGV[6], 'dependency_id', ARGV[7])
if redis.call('HGET', KEYS[2], 'status') ~= 'started' then
  return -1
end
if redis.call('HGET', KEYS[9], 'split_ended') == ARGV[3] then
  redis.call('HSET', KEYS[2], 'status', 'queued', 'enqueued_at', ARGV[4])
  redis.call('SADD', KEYS[10], KEYS[8])
  redis.call('LPUSH', KEYS[8], ARGV[1])
else
  redis.call('HSET', KEYS[2], 'status', 'deferred')
  redis.call('ZADD', KEYS[11], ARGV[5], ARGV[1])
end
for i = 12, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[8])
end
return 1
