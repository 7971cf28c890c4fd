-- The end of children of a split job, in the ledger of their parent; it is put before the scripts that count ends.

-- The parent of a job and its number among the children, as texts; nil if its id is none of a child's.
local function parent_of(id)
  if string.find(id, '-child-', 1, true) then  -- most are none: a tenth of the time
    return string.match(id, '^(.+)%-child%-(%d+)$')
  end
end

-- Note how a child has ended ('ok' or what went wrong), once; `sums` adds up what `tell_parent` is to be told.
-- Returns whether somebody waits for it, and had not heard of this end.
local function note_end(ledger, number, outcome, result, sums)
  local before = redis.call('HGET', ledger.children, number)
  if not before or before == outcome or before == 'ok' then
    return false
  end
  if before == '' then
    sums.ended = sums.ended + 1
  else
    sums.failed = sums.failed - 1
  end
  redis.call('HSET', ledger.children, number, outcome)
  if outcome ~= 'ok' then
    sums.failed = sums.failed + 1
  elseif result ~= '' then
    redis.call('HSET', ledger.gathered, number, result)
  end
  return true
end

-- Add ends of children to the sums of their parent and of all above it. The last child releases the parent, which then
-- gathers. `at`: now (text and epoch), seconds that records live, and that they live while the parent waits.
-- Returns whether the parent was released.
local function tell_parent(ledger, parent, sums, at)
  redis.call('HINCRBY', ledger.runs .. parent, 'split_ended', sums.ended)
  if sums.failed ~= 0 then
    redis.call('HINCRBY', ledger.runs .. parent, 'split_failed', sums.failed)
  end
  redis.call('HSET', ledger.runs .. parent, 'split_ended_at', at.epoch)
  local above = parent
  while above do
    local run = ledger.runs .. above
    if above == parent or redis.call('EXISTS', run) == 1 then
      if sums.items > 0 then
        redis.call('HINCRBY', run, 'split_items', sums.items)
      end
      if sums.peak > tonumber(redis.call('HGET', run, 'split_peak_mb') or '0') then
        redis.call('HSET', run, 'split_peak_mb', tostring(sums.peak))
      end
    end
    above = parent_of(above)
  end
  local waits = redis.call('HGET', ledger.jobs .. parent, 'status') == 'deferred'
  for _, key in ipairs({ledger.runs .. parent, ledger.children, ledger.gathered}) do
    redis.call('EXPIRE', key, waits and at.waiting or at.keep)
  end
  local known = redis.call('HMGET', ledger.runs .. parent, 'split_sealed', 'split_total', 'split_ended', 'split_queue',
    'job', 'split_failed', 'split_items', 'split_peak_mb', 'split_started_at')
  if known[1] ~= '1' or known[2] ~= known[3] or not waits then
    return false
  end
  if not parent_of(parent) then  -- a parent that is a child itself is not kept
    redis.call('LPUSH', ledger.ended, cjson.encode({
      job_id = parent, job = known[5] or '', children = tonumber(known[2]), failed = tonumber(known[6] or '0'),
      items = tonumber(known[7] or '0'), peak_mb = tonumber(known[8] or '0'),
      started_at = tonumber(known[9] or '0'), ended_at = tonumber(at.epoch)}))
    redis.call('LTRIM', ledger.ended, 0, at.kept - 1)
  end
  local queue = cjson.decode(known[4])
  redis.call('ZREM', queue['deferred'], parent)
  redis.call('HSET', ledger.jobs .. parent, 'status', 'queued', 'enqueued_at', at.iso)
  redis.call('SADD', queue['queues'], queue['key'])
  redis.call('LPUSH', queue['key'], parent)
  return true
end
