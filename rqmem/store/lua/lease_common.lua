-- What several scripts about leases share; it is put before each of them.
-- RQ's keys are made here from the names of queues and jobs: P is RQ's prefix.

local function owner_is(running, id, execution)
  local raw = redis.call('HGET', running, id)
  return raw and cjson.decode(raw)['execution'] == execution
end

-- Whether an id was in the intermediate queue. If not, somebody took the job for abandoned and has put it back.
local function leave_intermediate(P, queue, id)
  return redis.call('LREM', P .. ':queue:' .. queue .. ':intermediate', 1, id) == 1
end

-- Take these ids off the front of a list, if it begins with all of them in this order: as a rule it does, and two
-- commands do what else takes one for each. Returns whether it did, and the id at the front then, if there is one.
local function take_off_front(list, ids)
  if #ids < 3 then
    return false
  end
  local there = redis.call('LRANGE', list, 0, #ids)
  for i, id in ipairs(ids) do
    if id ~= there[i] then
      return false
    end
  end
  redis.call('LTRIM', list, #ids, -1)
  return true, there[#ids + 1]
end

-- The field `shown` of a lease has the ids of all jobs of it that RQ shows as running, with a space on both sides.
local function is_shown(shown, id)
  return shown and string.find(shown, ' ' .. id .. ' ', 1, true) ~= nil
end

local function forget_shown(lease, id)
  local shown = redis.call('HGET', lease, 'shown') or ''
  local first, last = string.find(shown, ' ' .. id .. ' ', 1, true)
  if first then
    shown = string.sub(shown, 1, first - 1) .. string.sub(shown, last + 1)
    if shown == '' then
      redis.call('HDEL', lease, 'shown')
    else
      redis.call('HSET', lease, 'shown', shown)
    end
  end
end

-- The records that RQ has of a running job. Returns whether RQ had it as started.
local function remove_start(P, running, worker_executions, queue, id, execution)
  local composite = id .. ':' .. execution
  local was_started = redis.call('ZREM', P .. ':wip:' .. queue, composite)
  redis.call('DEL', P .. ':execution:' .. composite)
  redis.call('ZREM', P .. ':executions:' .. id, execution)
  redis.call('SREM', worker_executions, composite)
  if owner_is(running, id, execution) then
    redis.call('HDEL', running, id)
  end
  return was_started == 1
end

-- As RQ's `Execution.create` and `Job.prepare_for_execution`, with the owner of the run. The job was taken: it is in the
-- intermediate queue no more.
local function add_start(P, running, worker_executions, worker, queue, id, execution, iso, epoch, now, ttl, owner)
  local composite, job = id .. ':' .. execution, P .. ':job:' .. id
  local record, registry = P .. ':execution:' .. composite, P .. ':executions:' .. id
  redis.call('HSET', job, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  redis.call('PERSIST', job)
  redis.call('HSET', record, 'id', execution, 'job_id', id, 'created_at', epoch, 'last_heartbeat', epoch,
    'worker_name', worker)
  redis.call('EXPIRE', record, ttl)
  redis.call('ZADD', registry, now + ttl + 60, execution)
  redis.call('EXPIRE', registry, ttl + 60)
  redis.call('ZADD', P .. ':wip:' .. queue, now + ttl, composite)
  redis.call('SADD', worker_executions, composite)
  redis.call('EXPIRE', worker_executions, ttl + 60)
  redis.call('HSET', running, id, owner)
end

-- The record of a job's run so far, which its horse has kept: a JSON text. Only one that is newer than what is there is
-- written, since two may come at once. ARGV from `first` on: the results of finished chunks.
local function write_record(run, results, text, keep, first)
  local record = cjson.decode(text)
  if record.version <= tonumber(redis.call('HGET', run, 'held') or '0') then
    return
  end
  redis.call('HSET', run, 'held', record.version, unpack(record.fields))
  redis.call('EXPIRE', run, keep)
  if ARGV[first] then
    redis.call('DEL', results)
    for i = first, #ARGV do
      redis.call('RPUSH', results, ARGV[i])
    end
    redis.call('EXPIRE', results, keep)
  end
end

-- Put an id back to the front of its queue, behind those that were taken before it and put back earlier, but in front
-- of `follower`. `returned` is the sorted set of what was put back lately, with the times when it was first taken.
local function put_back(P, queue, returned, id, taken_at, follower)
  taken_at = tonumber(redis.call('ZSCORE', returned, id) or taken_at)
  local function enqueued_at(job)
    return redis.call('HGET', P .. ':job:' .. job, 'enqueued_at') or ''
  end
  local place, others, earlier = 0, 0, nil
  local there = redis.call('LINDEX', queue, place)
  while there and there ~= follower and others <= 8 do  -- jobs that have come to the front since may stand before those
    local before = tonumber(redis.call('ZSCORE', returned, there) or math.huge)
    if before < taken_at and (others == 0 or enqueued_at(there) <= enqueued_at(id)) then  -- else it was requeued since
      earlier = there
    else
      others = others + 1
    end
    place = place + 1
    there = redis.call('LINDEX', queue, place)
  end
  if earlier then
    redis.call('LINSERT', queue, 'AFTER', earlier, id)
  else
    redis.call('LPUSH', queue, id)
  end
  redis.call('ZADD', returned, taken_at, id)
  redis.call('ZREMRANGEBYSCORE', returned, '-inf', taken_at - 60000000)
  redis.call('EXPIRE', returned, 60)
  redis.call('SADD', P .. ':queues', queue)
end

-- All ids but `keep` go from the taken list back to their queues, in order, unless the job has ended meanwhile.
-- Returns how many are in their queues again.
local function put_back_all(P, taken, lease, returned, keep)
  local times, followers, taken_at = {}, {}, 0
  for id, time in string.gmatch(redis.call('HGET', lease, 'batches') or '', '(%S+) (%S+)') do
    times[id], taken_at = time, time  -- at the end that of the last batch
  end
  local count = 0
  local ids = redis.call('LRANGE', taken, 0, -1)
  for i = #ids, 1, -1 do
    local id = ids[i]
    taken_at = times[id] or taken_at  -- noted with the last id of each batch
    if id ~= keep then
      redis.call('LREM', taken, -1, id)
      local job = redis.pcall('HMGET', P .. ':job:' .. id, 'status', 'origin')
      if job[2] then
        local queue = P .. ':queue:' .. job[2]
        if redis.call('LREM', queue .. ':intermediate', -1, id) == 1 and job[1] == 'queued' then
          put_back(P, queue, returned .. job[2], id, taken_at + i, followers[queue])  -- us: to take a job takes more
          followers[queue] = id
          count = count + 1
        end
      else
        for queue in string.gmatch(redis.call('HGET', lease, 'queues') or '', '[^\n]+') do
          leave_intermediate(P, queue, id)
        end
      end
    end
  end
  return count
end

local function close(worker, taken, lease, leases)
  redis.call('DEL', taken, lease)
  redis.call('SREM', leases, worker)
end
