-- Put a job whose resume was delayed at the front of its queue, once.
-- KEYS: 1 delayed resumes, 2 scheduled registry, 3 job, 4 queue, 5 set of queues   ARGV: 1 job id, 2 now (text), 3 RQ's prefix
-- Returns 1: done; 0: it is somebody else's; 2: it has lost its place of those that RQ's rate limit gives, and waits for
-- one as the first.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
-- It was cancelled, deleted, or moved by somebody else meanwhile.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 or redis.call('HGET', KEYS[3], 'status') ~= 'scheduled' then
  return 0
end
local limit = redis.call('HGET', KEYS[3], 'rate_limit_key')
if limit and limit ~= '' and not redis.call('ZSCORE', ARGV[3] .. ':rl:' .. limit .. ':allowed', ARGV[1]) then
  redis.call('HSET', KEYS[3], 'status', 'rate_limited', 'enqueue_at_front', 1)
  redis.call('ZADD', ARGV[3] .. ':rl:' .. limit .. ':rate_limited', 0, ARGV[1])
  return 2
end
redis.call('HSET', KEYS[3], 'status', 'queued', 'enqueued_at', ARGV[2])
redis.call('SADD', KEYS[5], KEYS[4])
redis.call('LPUSH', KEYS[4], ARGV[1])
return 1
