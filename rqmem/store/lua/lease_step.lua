-- needs lease_common children_common
-- Commit jobs that have finished, and note which one begins: RQ's `handle_job_success` and `cleanup_execution` for jobs
-- without dependents, callbacks, repeats and limits. Repeated, it changes nothing and refuses all of them as 'gone'.
-- Returns 0, or why the next one may not begin ('', 'gone', 'status') and for each job refused its id and why:
--   gone     it is not taken by this worker: given back, taken over, or committed before; or somebody else runs it
--   deleted  the job does not exist any more, or another one has its id
--   status   somebody has ended the job, which RQ did not show as running
--   plain    it is taken as before: RQ's own methods must commit it, or fail it by the error that they meet
-- KEYS: 1 taken, 2 lease, 3 running, 4 worker, 5 worker's executions
-- ARGV: 1 RQ's prefix, 2 worker, 3 prefix of runs, 4 of their results, 5 of children, 6 of what those returned,
--       7 the list of jobs whose children have all ended, 8 how many are kept, 9 seconds that a run lives, 10 that it
--       lives while its job waits for children, 11 now (epoch), 12 seconds worked, 13 how many have finished;
--       the next one, or six times '': 14 id, 15 execution, 16 queue, 17 start (text), 18 start (epoch), 19 its run as it
--       begins, or ''; 14 '' and 15 'goes on': the one that has begun is in hand still;
--       for each that has finished: queue, id, when it was made, execution, start and end (text), start and end (epoch),
--       result TTL, result ('': None), the record of its run ('': it has none), a child's result for its parent
local P, taken, lease, running = ARGV[1], KEYS[1], KEYS[2], KEYS[3]
local NEXT, EACH = 14, 12
local SET_BY_JOBS = {queued = true, scheduled = true, finished = true}  -- as their own status, by `Job.set_status`
local shown = redis.call('HGET', lease, 'shown')
local refused, committed = {''}, 0
local parents, last_end = {}, ''
local last_ttl, kept_until
local finished = {}  -- queue -> scores and ids for its registry

local function has_finished(queue, score, id)
  local here = finished[queue] or {}
  here[#here + 1], here[#here + 2] = score, id
  finished[queue] = here
end

-- Of all that has finished: their ids, keys, whether somebody waits for one of them, and whether they are all off the
-- lists by now.
local ids, dependents, one_queue = {}, {}, true
for at = NEXT + 6, NEXT + 5 + EACH * tonumber(ARGV[13]), EACH do
  ids[#ids + 1] = ARGV[at + 1]
  dependents[#ids] = P .. ':job:' .. ARGV[at + 1] .. ':dependents'
  one_queue = one_queue and ARGV[at] == ARGV[NEXT + 6]
end
local awaited = #ids > 0 and redis.call('EXISTS', unpack(dependents)) > 0
local all_taken, front = take_off_front(taken, ids)
local all_left = all_taken and not awaited and one_queue
  and take_off_front(P .. ':queue:' .. ARGV[NEXT + 6] .. ':intermediate', ids)

local function refusal(queue, id, created_at, execution, job)
  local deleted, was_there = job[2] ~= created_at, all_left or leave_intermediate(P, queue, id)
  if is_shown(shown, id) then
    local ours = owner_is(running, id, execution)
    if ours and not deleted and (job[1] == 'failed' or job[1] == 'canceled'
        or SET_BY_JOBS[job[1]] and redis.call('ZSCORE', P .. ':wip:' .. queue, id .. ':' .. execution)) then
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

-- As `executions.finish`.
local function keep_run(id, record, ttl)
  local run, results = ARGV[3] .. id, ARGV[4] .. id
  if record.saved then
    redis.call('DEL', results)
  end
  if ttl == 0 then
    if record.saved then
      redis.call('DEL', run)
    end
    return
  end
  redis.call('HSET', run, unpack(record.fields))
  redis.call('EXPIRE', run, ttl < 0 and ARGV[9] or ttl)
end

-- A child has ended well; its parent is told of all children of this step at once.
local function add_end(parent, number, result, record)
  local known = parents[parent]
  if not known then
    known = {
      ledger = {runs = ARGV[3], jobs = P .. ':job:', children = ARGV[5] .. parent, gathered = ARGV[6] .. parent,
        ended = ARGV[7]},
      sums = {ended = 0, failed = 0, items = 0, peak = 0}, counts = false}
    parents[parent] = known
  end
  if note_end(known.ledger, number, 'ok', result, known.sums) then
    known.counts = true
    if record then
      known.sums.items = known.sums.items + record.items
      known.sums.peak = math.max(known.sums.peak, record.peak)
    end
  end
end

-- Raises where Redis does not take it: a time to live that is too long, say, or a key of the job's that is something
-- else. The others of this step are off the lists by now, and must not be lost for it.
local function commit(at, queue, id, key, depends)
  local ttl, results = tonumber(ARGV[at + 8]), P .. ':results:' .. id
  local record = ARGV[at + 10] ~= '' and cjson.decode(ARGV[at + 10])
  if record then
    keep_run(id, record, ttl)
  end
  if ttl == 0 then
    redis.call('DEL', key, P .. ':job::' .. id .. ':dependencies', results, P .. ':executions:' .. id)
  else
    if ttl > 0 then
      redis.call('EXPIRE', key, ARGV[at + 8])  -- a number would be printed anew
      if depends then
        redis.call('EXPIRE', P .. ':job::' .. id .. ':dependencies', ARGV[at + 8])
      end
    else
      redis.call('PERSIST', key)
    end
    if ARGV[at + 9] == '' then
      redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', ARGV[2],
        'execution_id', ARGV[at + 3], 'execution_started_at', ARGV[at + 6], 'execution_ended_at', ARGV[at + 7])
    else
      redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', ARGV[2],
        'return_value', ARGV[at + 9], 'execution_id', ARGV[at + 3],
        'execution_started_at', ARGV[at + 6], 'execution_ended_at', ARGV[at + 7])
    end
    if ttl > 0 then
      redis.call('EXPIRE', results, ARGV[at + 8])
    else
      redis.call('PERSIST', results)
    end
    redis.call('HSET', key, 'status', 'finished', 'started_at', ARGV[at + 4], 'ended_at', ARGV[at + 5],
      'last_heartbeat', ARGV[at + 5], 'worker_name', ARGV[2])
  end
  local parent, number = parent_of(id)
  if parent then
    add_end(parent, number, ARGV[at + 11], record)
  end
  if ttl > 0 and ttl ~= last_ttl then
    last_ttl, kept_until = ttl, string.format('%d', ARGV[11] + ttl)
  end
  if ttl ~= 0 then
    has_finished(queue, ttl > 0 and kept_until or '+inf', id)
  end
  committed = committed + 1
  last_end = ARGV[at + 5]
end

for at = NEXT + 6, NEXT + 5 + EACH * tonumber(ARGV[13]), EACH do
  local queue, id = ARGV[at], ARGV[at + 1]
  local key = P .. ':job:' .. id
  local why
  if not all_taken and redis.call('LREM', taken, 1, id) == 0 then
    why = 'gone'
  elseif awaited and redis.call('EXISTS', key .. ':dependents') == 1 then
    why = 'plain'
  else
    local job = redis.pcall('HMGET', key, 'status', 'created_at', 'dependency_id')
    why = refusal(queue, id, ARGV[at + 2], ARGV[at + 3], job)
    if not why and not pcall(commit, at, queue, id, key, job[3]) then
      redis.pcall('HSET', key, 'status', 'queued')
      redis.pcall('HDEL', key, 'ended_at')
      redis.call('RPUSH', P .. ':queue:' .. queue .. ':intermediate', id)
      why = 'plain'
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
  redis.pcall('ZADD', P .. ':finished:' .. queue, unpack(scores))
end
if committed > 0 then
  redis.pcall('HINCRBY', KEYS[4], 'successful_job_count', committed)
  redis.pcall('HINCRBYFLOAT', KEYS[4], 'total_working_time', ARGV[12])
end
for parent, known in pairs(parents) do
  if known.counts then
    tell_parent(known.ledger, parent, known.sums, {iso = last_end, epoch = ARGV[11], keep = ARGV[9],
      waiting = ARGV[10], kept = ARGV[8]})
  end
end
if ARGV[NEXT] == '' then
  if ARGV[NEXT + 1] ~= 'goes on' then
    redis.call('HDEL', lease, 'at', 'execution', 'queue', 'at_iso', 'at_epoch', 'at_run')
  end
elseif ARGV[NEXT] ~= front and not redis.call('LPOS', taken, ARGV[NEXT]) then
  refused[1] = 'gone'
elseif redis.call('HGET', P .. ':job:' .. ARGV[NEXT], 'status') ~= 'queued' then
  refused[1] = 'status'
else
  redis.call('HSET', lease, 'at', ARGV[NEXT], 'execution', ARGV[NEXT + 1], 'queue', ARGV[NEXT + 2],
    'at_iso', ARGV[NEXT + 3], 'at_epoch', ARGV[NEXT + 4], 'at_run', ARGV[NEXT + 5])
end
if #refused == 1 and refused[1] == '' then
  return 0
end
return refused
