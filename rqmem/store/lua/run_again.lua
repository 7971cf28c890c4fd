-- Count a child of a split job that has failed as one that has not ended, and queue it again: both, or neither.
-- Repeated, it changes nothing. Returns 1: done; 0: it has not failed, or is no longer among RQ's failed jobs.
-- KEYS: 1 parent's run, 2 children, 3 child job, 4 failed registry, 5 queue, 6 set of queues
-- ARGV: 1 child id, 2 number of the child, 3 now (text), 4 1: at the front
local outcome = redis.call('HGET', KEYS[2], ARGV[2])
if not outcome or outcome == '' or outcome == 'ok' then
  return 0
end
if redis.call('EXISTS', KEYS[3]) == 0 or redis.call('ZREM', KEYS[4], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[2], '')
redis.call('HINCRBY', KEYS[1], 'split_ended', -1)
redis.call('HINCRBY', KEYS[1], 'split_failed', -1)
redis.call('PERSIST', KEYS[3])
redis.call('HSET', KEYS[3], 'status', 'queued', 'enqueued_at', ARGV[3], 'started_at', '', 'ended_at', '')
redis.call('SADD', KEYS[6], KEYS[5])
redis.call(ARGV[4] == '1' and 'LPUSH' or 'RPUSH', KEYS[5], ARGV[1])
return 1
