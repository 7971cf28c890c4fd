-- needs lease_common
-- Take one job from the front of the first of these queues that has one, as RQ's `dequeue_any`: ids whose job is gone
-- are dropped. So is what is no job of RQ: without a call, of another type, or with an id that RQ does not take; it is
-- returned without fields, for the log. Ids that wait for room, which are near the front, are left where they are.
-- With an execution, a job that is queued as usual is claimed and started at once. Repeated with the same execution, the
-- answer is the same job: the first one may have been lost. Any other id goes to RQ's intermediate queue, so that it is
-- not lost if its worker dies.
-- Returns {'suspended'}, {'empty'}, or the number of the queue (from 0), the id, all fields of the job as they were
-- before, the id that was left before it in the queue, if any, and 1 if it is started, else 0.
-- KEYS: 1 suspended, 2 paused queues, 3 running, 4 worker's executions, 5 worker, 6... queues
-- ARGV: 1 RQ's prefix, 2 prefix of jobs' keys, 3 execution, or '': nothing is started, 4 worker, 5 start (text),
--       6 start (epoch), 7 now (epoch), 8 most seconds between two heartbeats, 9 owner of no execution, 10 the worker's
--       state, or '': it has been written, 11 prefix of what leases put back, 12... names of the queues, one for each,
--       then ids to leave
local P, EXECUTION, FIRST = ARGV[1], ARGV[3], 12
if EXECUTION ~= '' then
  for _, composite in ipairs(redis.call('SMEMBERS', KEYS[4])) do
    if string.sub(composite, -#EXECUTION) == EXECUTION then
      local id = string.sub(composite, 1, -#EXECUTION - 2)
      for number = 6, #KEYS do
        if redis.call('ZSCORE', P .. ':wip:' .. ARGV[number - 6 + FIRST], composite) then
          return {number - 6, id, redis.call('HGETALL', ARGV[2] .. id), '', 1}
        end
      end
    end
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'suspended'}
end
local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  paused[name] = true
end
local left = {}
for number = #KEYS - 5 + FIRST, #ARGV do
  left[ARGV[number]] = true
end

local function take_from(queue)
  local passed, job = {}, {}
  local id = redis.call('LPOP', queue)
  while id do
    if left[id] then
      passed[#passed + 1] = id
    else
      if redis.pcall('HEXISTS', ARGV[2] .. id, 'data') == 1 and string.find(id, '^[%w_-]+$') then
        job = redis.call('HGETALL', ARGV[2] .. id)
        break
      elseif redis.call('EXISTS', ARGV[2] .. id) == 1 then
        break
      end
    end
    id = redis.call('LPOP', queue)
  end
  for number = #passed, 1, -1 do
    redis.call('LPUSH', queue, passed[number])
  end
  return id, job, passed[#passed]
end

local function start(id, job, name)
  local fields = {}
  for at = 1, #job, 2 do
    fields[job[at]] = job[at + 1]
  end
  if fields['status'] ~= 'queued' or fields['origin'] ~= name then
    return 0
  end
  local interval, timeout = tonumber(ARGV[8]), tonumber(fields['timeout'] or '') or 0
  local ttl = 60 + math.floor(timeout > 0 and math.min(timeout, interval) or interval)
  local owner = cjson.decode(ARGV[9])
  owner['execution'], owner['queue'] = EXECUTION, name
  add_start(P, KEYS[3], KEYS[4], ARGV[4], name, id, EXECUTION, ARGV[5], ARGV[6], ARGV[7], ttl, cjson.encode(owner))
  if ARGV[10] ~= '' then
    redis.call('HSET', KEYS[5], 'state', ARGV[10])
  end
  return 1
end

for number = 6, #KEYS do
  local name = ARGV[number - 6 + FIRST]
  if not paused[name] then
    local id, job, before = take_from(KEYS[number])
    if id then
      redis.call('ZREM', ARGV[11] .. name, id)  -- whoever puts it back later has taken it later
      local started = EXECUTION ~= '' and #job > 0 and start(id, job, name) or 0
      if started == 0 and #job > 0 then
        redis.call('RPUSH', KEYS[number] .. ':intermediate', id)
      end
      return {number - 6, id, job, before or '', started}
    end
  end
end
return {'empty'}
