-- Count that a child of a split job has ended. The last child releases its parent, which then gathers. Repeated, it
-- changes nothing. Returns 0: nobody waits for the child, 1: counted, 2: the parent was released.
-- Nobody waits for a child of an earlier run that ends late: another job has its id by now.
-- KEYS: 1 parent's run, 2 children, 3 gathered, 4 parent job, 5 child's run, 6 child job, 7 jobs whose children have
--       all ended, 8... runs of ancestors
-- ARGV: 1 parent id, 2 number of the child, 3 outcome ('ok' or what went wrong), 4 result, 5 peak in MB,
--       6 now (text), 7 seconds to live, 8 now (epoch), 9 seconds to live while the parent waits,
--       10 stages from this number are gather's, whose items are results, 11 when the child was made (text),
--       12 how many jobs whose children have ended are kept; 0: the parent is a child itself, and is not kept
local before = redis.call('HGET', KEYS[2], ARGV[2])
if not before or before == ARGV[3] then
  return 0
end
local made = redis.call('HGET', KEYS[6], 'created_at')
if made and made ~= ARGV[11] then
  return 0
end
local ok = ARGV[3] == 'ok'
if before == '' then
  redis.call('HINCRBY', KEYS[1], 'split_ended', 1)
elseif before == 'ok' then
  return 0
else
  redis.call('HINCRBY', KEYS[1], 'split_failed', -1)
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'split_ended_at', ARGV[8])
if ok then
  if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
  end
else
  redis.call('HINCRBY', KEYS[1], 'split_failed', 1)
end
-- The items of the child itself, in all its executions; its own children were counted before. A child that failed may
-- run again, so its run keeps how many of its items were counted.
local items, counted, peak = 0, 0, tonumber(ARGV[5])
local fields = redis.call('HGETALL', KEYS[5])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  local stage = string.match(name, '^items:(%d+)$')
  if name == 'items_unsaved' or (stage and tonumber(stage) < tonumber(ARGV[10])) then
    items = items + tonumber(value)
  elseif name == 'items_told' then
    counted = tonumber(value)
  elseif name == 'peak_mb' then
    peak = math.max(peak, tonumber(value))
  end
end
if items > counted and not ok then
  redis.call('HSET', KEYS[5], 'items_told', items)
end
for i = 1, #KEYS do
  local above = i == 1 or i > 7
  if above and (i == 1 or redis.call('EXISTS', KEYS[i]) == 1) then
    if items > counted then
      redis.call('HINCRBY', KEYS[i], 'split_items', items - counted)
    end
    if peak > tonumber(redis.call('HGET', KEYS[i], 'split_peak_mb') or '0') then
      redis.call('HSET', KEYS[i], 'split_peak_mb', tostring(peak))
    end
  end
end
local waits = redis.call('HGET', KEYS[4], 'status') == 'deferred'
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3]}) do
  redis.call('EXPIRE', key, waits and ARGV[9] or ARGV[7])
end
local known = redis.call('HMGET', KEYS[1], 'split_sealed', 'split_total', 'split_ended', 'split_queue', 'job',
  'split_failed', 'split_items', 'split_peak_mb', 'split_started_at')
if known[1] ~= '1' or known[2] ~= known[3] or not waits then
  return 1
end
if ARGV[12] ~= '0' then
  redis.call('LPUSH', KEYS[7], cjson.encode({
    job_id = ARGV[1], job = known[5] or '', children = tonumber(known[2]), failed = tonumber(known[6] or '0'),
    items = tonumber(known[7] or '0'), peak_mb = tonumber(known[8] or '0'),
    started_at = tonumber(known[9] or '0'), ended_at = tonumber(ARGV[8])}))
  redis.call('LTRIM', KEYS[7], 0, ARGV[12] - 1)
end
local queue = cjson.decode(known[4])
redis.call('ZREM', queue['deferred'], ARGV[1])
redis.call('HSET', KEYS[4], 'status', 'queued', 'enqueued_at', ARGV[6])
redis.call('SADD', queue['queues'], queue['key'])
redis.call('LPUSH', queue['key'], ARGV[1])
return 2
