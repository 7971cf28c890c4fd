-- End an execution and put its job back at the front of its queue, now or at a given time; all or nothing, once.
-- Refused (0) unless the execution still owns the job; -1 if the job is gone or somebody else has ended it. Afterwards
-- RQ's records are those of a job that was just enqueued.
-- KEYS: 1 running, 2 job, 3 started registry, 4 execution, 5 job's executions, 6 worker's executions,
--       7 intermediate queue, 8 queue, 9 run, 10 set of queues, 11 failed registry, 12 scheduled registry,
--       13 delayed resumes, 14 the queue in which it goes on, 15... all keys that expire with the run
-- ARGV: 1 job id, 2 execution id, 3 stage ('' to leave the run as it is), 4 chunk size, 5 now (text),
--       6 what that takes from the budget of resumes, 7 1: the next execution is to cut what is left of that stage,
--       8 how its executions ended ('' to leave that as it is), 9 when it is due, in s since 1970 (0: now),
--       10 seconds that run may wait, 11 ceiling in MB that it goes on under ('': as before), 12 name of the queue
--       in which it goes on, if that is another one, or ''
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or cjson.decode(owner)['execution'] ~= ARGV[2] then
  return 0
end
local composite = ARGV[1] .. ':' .. ARGV[2]
redis.call('HDEL', KEYS[1], ARGV[1])
local was_started = redis.call('ZREM', KEYS[3], composite)
redis.call('DEL', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('SREM', KEYS[6], composite)
redis.call('LREM', KEYS[7], 0, ARGV[1])
local status = redis.call('HGET', KEYS[2], 'status')
-- 'failed' with an owner: RQ's maintenance took it for abandoned before we did.
if status == 'started' and was_started == 0 then
  return -1
elseif status ~= 'started' and status ~= 'queued' and status ~= 'failed' then
  return -1
end
if status == 'failed' then
  redis.call('ZREM', KEYS[11], ARGV[1])
end
redis.call('PERSIST', KEYS[2])
redis.call('LREM', KEYS[8], 0, ARGV[1])
local due = tonumber(ARGV[9])
if due > 0 then
  -- RQ's scheduler comes a minute later and moves the job if no worker of ours has.
  redis.call('HSET', KEYS[2], 'status', 'scheduled')
  redis.call('ZADD', KEYS[12], math.ceil(due) + 60, ARGV[1])
  redis.call('ZADD', KEYS[13], ARGV[9], ARGV[1])
else
  redis.call('HSET', KEYS[2], 'status', 'queued', 'enqueued_at', ARGV[5])
  redis.call('SADD', KEYS[10], KEYS[14])
  redis.call('LPUSH', KEYS[14], ARGV[1])
end
if ARGV[12] ~= '' then
  redis.call('HSET', KEYS[2], 'origin', ARGV[12])
end
if ARGV[11] ~= '' then
  redis.call('HSET', KEYS[9], 'escalated_mb', ARGV[11])
  redis.call('HINCRBY', KEYS[9], 'escalations', 1)
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[9], 'chunk_size:' .. ARGV[3], ARGV[4])
end
if tonumber(ARGV[6]) > 0 then
  redis.call('HINCRBY', KEYS[9], 'resumes', 1)
  redis.call('HINCRBY', KEYS[9], 'resumes_spent', ARGV[6])
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[9], 'history', ARGV[8])
end
if ARGV[7] == '1' then
  redis.call('HSET', KEYS[9], 'cut_stage', ARGV[3])
end
for i = 15, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[10])
end
return 1
