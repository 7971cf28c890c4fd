-- Remove a job that has ended, so that another one can have its id. Its dependents stay: they wait for the next one.
-- Returns 1: done; 0: there is none, it has not ended, or an execution of it still runs.
-- KEYS: 1 job, 2 job's executions, 3 running   ARGV: 1 RQ's prefix, 2 job id
local job = redis.call('HMGET', KEYS[1], 'status', 'origin')
local ended = { finished = 1, failed = 1, stopped = 1, canceled = 1 }
if not job[1] or not ended[job[1]] then
  return 0
end
if redis.call('ZCARD', KEYS[2]) > 0 or redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then
  return 0
end
local P, origin = ARGV[1], job[2] or ''
for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
  redis.call('ZREM', P .. ':' .. registry .. ':' .. origin, ARGV[2])
end
redis.call('DEL', KEYS[1], P .. ':results:' .. ARGV[2], P .. ':job::' .. ARGV[2] .. ':dependencies')
return 1
