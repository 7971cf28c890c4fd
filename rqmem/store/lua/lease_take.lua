-- Take up to k jobs from the front of these queues, in the order of the queues. Stops before the first job that needs
-- more than a lease does; it stays in its queue. As in RQ's `dequeue_any`, ids whose job is gone are dropped.
-- Jobs that have been moved to the intermediate queues, by whoever waited for them, go back to the front first: so they
-- are taken, or stay, as any other. One that was cancelled meanwhile does not: a worker of RQ would run it.
-- Returns why it stopped, what the next job needs, and for each job taken: queue (a number from 0), id, data, timeout,
-- result TTL, when it was made. Why: '': it has k jobs, or enough bytes, or has dropped many ids; 'empty', 'needs',
-- 'suspended', 'recalled', 'token'; 'paused': none was taken, and the queue of a job that was moved is paused.
-- KEYS: 1 taken, 2 lease, 3 set of leases, 4 suspended, 5 set of paused queues
-- ARGV: 1 RQ's prefix, 2 worker, 3 token, 4 k, 5 bytes of data that are enough, 6 owner, to open the lease, or '',
--       7 prefix of runs, 8 how many have been moved; of each the number of its queue and its id; then the names of
--       the queues
local P = ARGV[1]
local names = 9 + 2 * tonumber(ARGV[8])  -- the first of them
local paused = false
for at = 9, names - 2, 2 do
  local name, id = ARGV[names + tonumber(ARGV[at])], ARGV[at + 1]
  local queue = P .. ':queue:' .. name
  local was_there = redis.call('LREM', queue .. ':intermediate', -1, id) == 1
  if was_there and redis.pcall('HGET', P .. ':job:' .. id, 'status') ~= 'canceled' then
    redis.call('LPUSH', queue, id)
    paused = paused or redis.call('SISMEMBER', KEYS[5], name) == 1
  end
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {'suspended', ''}
end
local known = redis.call('HMGET', KEYS[2], 'token', 'recalled', 'batches')
if known[1] ~= ARGV[3] and (known[1] or ARGV[6] == '') then
  return {'token', ''}
elseif known[2] then
  return {'recalled', ''}
end
local left, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local reply, seen = {'empty', ''}, {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do  -- one that is in its queue twice runs twice
  seen[id] = true
end

local FIELDS = {'status', 'origin', 'data', 'timeout', 'result_ttl', 'created_at', 'group_id', 'success_callback_name',
  'rate_limit_key', 'webhooks', 'repeats_left'}

-- `job`: the values of FIELDS. `follows`: for some of these jobs there are dependents, or the record of a run.
local function needs(job, id, queue, follows)
  if not job[3] or not string.find(id, '^[%w_-]+$') then
    return 'job'  -- it is none
  elseif job[1] ~= 'queued' or not job[6] or seen[id] then
    return 'status'
  elseif job[2] ~= queue then
    return 'origin'
  elseif string.sub(job[3], 1, 1) ~= 'x' then
    return 'data'  -- not compressed: RQ's commit would do it
  end
  for i = 8, 10 do
    if (job[i] or '') ~= '' then
      return FIELDS[i]
    end
  end
  if (tonumber(job[11] or '') or 0) > 0 then
    return FIELDS[11]
  end
  local ttl = tonumber(job[5] or '') or 500
  if ttl < -1 or (ttl == 0 and (job[7] or '') ~= '') then
    return 'result_ttl'
  elseif follows and redis.call('EXISTS', P .. ':job:' .. id .. ':dependents', ARGV[7] .. id) > 0 then
    return redis.call('EXISTS', ARGV[7] .. id) == 1 and 'run' or 'dependents'  -- it goes on; or they follow it at once
  end
end

-- Returns how many ids it has looked at.
local function take_from(number)
  if redis.call('SISMEMBER', KEYS[5], ARGV[number]) == 1 then
    return 0
  end
  local queue = P .. ':queue:' .. ARGV[number]
  local ids = redis.call('LRANGE', queue, 0, left - 1)
  local passed, taken, keys = 0, {}, {}
  for i, id in ipairs(ids) do
    keys[2 * i - 1], keys[2 * i] = P .. ':job:' .. id .. ':dependents', ARGV[7] .. id
  end
  local follows = #ids > 0 and redis.call('EXISTS', unpack(keys)) > 0
  for _, id in ipairs(ids) do
    local key = P .. ':job:' .. id
    local job = redis.pcall('HMGET', key, unpack(FIELDS))
    if job[3] or redis.call('EXISTS', key) == 1 then
      local what = needs(job, id, ARGV[number], follows)
      if what then
        reply[1], reply[2] = 'needs', what
        break
      end
      if #reply == 2 and not known[1] then
        redis.call('HSET', KEYS[2], 'token', ARGV[3], 'owner', ARGV[6], 'queues', table.concat(ARGV, '\n', names))
        redis.call('SADD', KEYS[3], ARGV[2])
      end
      seen[id] = true
      taken[#taken + 1] = id
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = number - names, id, job[3]
      reply[at + 4], reply[at + 5], reply[at + 6] = job[4] or '', job[5] or '', job[6] or ''
      left, room = left - 1, room - #job[3]
    end
    passed = passed + 1
    if left == 0 or room <= 0 then
      reply[1] = ''
      break
    end
  end
  if #taken > 0 then
    redis.call('RPUSH', queue .. ':intermediate', unpack(taken))
    redis.call('RPUSH', KEYS[1], unpack(taken))
  end
  if passed > 0 then
    redis.call('LTRIM', queue, passed, -1)
  end
  return #ids
end

local looked, number = 0, names
while number <= #ARGV and reply[1] == 'empty' do
  local count = take_from(number)
  looked = looked + count
  if looked > 1000 and reply[1] == 'empty' then
    reply[1] = ''  -- that many were dropped: Redis has others to serve
  elseif count == 0 then
    number = number + 1
  end
end
if reply[1] == 'empty' and #reply == 2 and paused then
  reply[1] = 'paused'
end
if #reply > 2 then  -- when each of the last batches was taken, with its last id
  local time = redis.call('TIME')
  local before = known[3]
  local first = before and string.find(before, '\n', 1, true)
  if first and string.find(before, '\n', first + 1, true) then
    before = string.sub(before, first + 1)  -- the last two
  end
  local batch = string.format('%s %d%06d', reply[#reply - 4], time[1], time[2])
  redis.call('HSET', KEYS[2], 'batches', before and before .. '\n' .. batch or batch)
end
return reply
