-- Commit jobs that have finished, and note which one begins: RQ's `handle_job_success` and `cleanup_execution` for jobs
-- without dependents, callbacks, repeats and limits. Repeated, it changes nothing and refuses all of them as 'gone'.
-- Returns 0, or why the next one may not begin ('', 'gone', 'status') and for each job refused its id and why:
--   gone     it is not taken by this worker: given back, taken over, or committed before; or somebody else runs it
--   deleted  the job does not exist any more, or another one has its id
--   status   somebody has ended the job, which RQ did not show as running
--   plain    it is taken as before: RQ's own methods must commit it
-- KEYS: 1 taken, 2 lease, 3 running, 4 worker, 5 worker's executions
-- ARGV: 1 RQ's prefix, 2 worker, 3 now (epoch), 4 seconds worked, 5 how many have finished; the next one, or five times
--       '': 6 id, 7 execution, 8 queue, 9 start (text), 10 start (epoch); 6 '' and 7 'goes on': the one that has begun
--       is in hand still;
--       for each that has finished: queue, id, when it was made, execution, start and end (text), start and end (epoch),
--       result TTL, result ('': None)
local P, taken, lease, running = ARGV[1], KEYS[1], KEYS[2], KEYS[3]
local shown = redis.call('HGET', lease, 'shown')
local refused, committed = {''}, 0
local finished = {}  -- queue -> scores and ids for its registry

local function has_finished(queue, score, id)
  local here = finished[queue] or {}
  here[#here + 1], here[#here + 2] = score, id
  finished[queue] = here
end

local function refusal(queue, id, created_at, execution, job)
  local deleted, was_there = job[2] ~= created_at, leave_intermediate(P, queue, id)
  if is_shown(shown, id) then
    local ours = owner_is(running, id, execution)
    if ours and (job[1] == 'failed' or job[1] == 'canceled') and not deleted then
      return 'plain'
    end
    forget_shown(lease, id)
    local started = remove_start(P, running, KEYS[5], queue, id, execution)
    if not deleted and not (ours and started and job[1] == 'started') then
      return 'gone'
    end
  elseif not deleted then
    if job[1] == 'queued' then
      return not was_there and 'gone' or nil
    end
    return job[1] == 'started' and 'gone' or 'status'
  end
  if deleted then
    if not job[2] then
      redis.call('DEL', P .. ':job:' .. id)  -- a heartbeat may have written to it since
    end
    return 'deleted'
  end
end

for at = 11, 1 + 10 * tonumber(ARGV[5]), 10 do
  local queue, id = ARGV[at], ARGV[at + 1]
  local key = P .. ':job:' .. id
  local why
  if redis.call('LREM', taken, 1, id) == 0 then
    why = 'gone'
  elseif redis.call('EXISTS', key .. ':dependents') == 1 then
    why = 'plain'
  else
    local job = redis.call('HMGET', key, 'status', 'created_at', 'dependency_id')
    why = refusal(queue, id, ARGV[at + 2], ARGV[at + 3], job)
    if not why then
      committed = committed + 1
      local ttl = tonumber(ARGV[at + 8])
      if ttl == 0 then
        redis.call('DEL', key, P .. ':job::' .. id .. ':dependencies', P .. ':results:' .. id,
          P .. ':executions:' .. id)
      else
        local results = P .. ':results:' .. id
        redis.call('HSET', key, 'status', 'finished', 'started_at', ARGV[at + 4], 'ended_at', ARGV[at + 5],
          'last_heartbeat', ARGV[at + 5], 'worker_name', ARGV[2])
        if ARGV[at + 9] == '' then
          redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', ARGV[2],
            'execution_id', ARGV[at + 3], 'execution_started_at', ARGV[at + 6], 'execution_ended_at', ARGV[at + 7])
        else
          redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', ARGV[2],
            'return_value', ARGV[at + 9], 'execution_id', ARGV[at + 3],
            'execution_started_at', ARGV[at + 6], 'execution_ended_at', ARGV[at + 7])
        end
        if ttl > 0 then
          redis.call('EXPIRE', results, ttl)
          redis.call('EXPIRE', key, ttl)
          if job[3] then
            redis.call('EXPIRE', P .. ':job::' .. id .. ':dependencies', ttl)
          end
          has_finished(queue, ARGV[3] + ttl, id)
        else
          redis.call('PERSIST', results)
          redis.call('PERSIST', key)
          has_finished(queue, '+inf', id)
        end
      end
    end
  end
  if why then
    refused[#refused + 1] = id
    refused[#refused + 1] = why
    if why == 'plain' then
      redis.call('LPUSH', taken, id)
    end
  end
end

for queue, scores in pairs(finished) do
  redis.call('ZADD', P .. ':finished:' .. queue, unpack(scores))
end
if committed > 0 then
  redis.call('HINCRBY', KEYS[4], 'successful_job_count', committed)
  redis.call('HINCRBYFLOAT', KEYS[4], 'total_working_time', ARGV[4])
end
if ARGV[6] == '' then
  if ARGV[7] ~= 'goes on' then
    redis.call('HDEL', lease, 'at', 'execution', 'queue', 'at_iso', 'at_epoch')
  end
elseif not redis.call('LPOS', taken, ARGV[6]) then
  refused[1] = 'gone'
elseif redis.call('HGET', P .. ':job:' .. ARGV[6], 'status') ~= 'queued' then
  refused[1] = 'status'
else
  redis.call('HSET', lease, 'at', ARGV[6], 'execution', ARGV[7], 'queue', ARGV[8], 'at_iso', ARGV[9],
    'at_epoch', ARGV[10])
end
if #refused == 1 and refused[1] == '' then
  return 0
end
return refused
