-- needs lease_common
-- Commit a job that has finished, if the execution still owns it and nobody waits for it: RQ's `handle_job_success` and
-- `cleanup_execution` for a job without dependencies and repeats, whose result is kept for a time.
-- Returns 1; 0, and changes nothing, where anything is out of the ordinary.
-- KEYS: 1 running, 2 worker, 3 worker's executions
-- ARGV: 1 RQ's prefix, 2 queue, 3 id, 4 execution, 5 seconds worked, 6 result TTL, 7 now (epoch), 8 how many words the
--       result has, then fields and values of the result, then those of the job
local P, queue, id, execution, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local job, results, last = P .. ':job:' .. id, P .. ':results:' .. id, 8 + ARGV[8]
if not owner_is(KEYS[1], id, execution) or redis.call('EXISTS', job .. ':dependents') == 1 then
  return 0
end
local known = redis.call('HMGET', job, 'status', 'created_at')
if known[1] ~= 'started' or not known[2]
    or not redis.call('ZSCORE', P .. ':wip:' .. queue, id .. ':' .. execution) then
  return 0
end
redis.call('HINCRBY', KEYS[2], 'successful_job_count', 1)
redis.call('HINCRBYFLOAT', KEYS[2], 'total_working_time', ARGV[5])
redis.call('HSET', job, 'status', 'finished', unpack(ARGV, last + 1))
redis.call('EXPIRE', job, ttl)
redis.call('XADD', results, 'MAXLEN', '~', '10', '*', unpack(ARGV, 9, last))
redis.call('EXPIRE', results, ttl)
redis.call('ZADD', P .. ':finished:' .. queue, ARGV[7] + ttl, id)
remove_start(P, KEYS[1], KEYS[3], queue, id, execution)
return 1
