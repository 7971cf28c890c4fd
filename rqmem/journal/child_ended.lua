-- A child of a split job has ended; the last one releases its parent, which then gathers. Repeated, it changes nothing.
-- Returns 0: nobody waits for it, 1: counted, 2: the parent was released.
-- KEYS: 1 parent's run, 2 children, 3 gathered, 4 parent job
-- ARGV: 1 parent id, 2 number of the child, 3 outcome ('ok' or what went wrong), 4 result, 5 items, 6 peak in MB,
--       7 now (text), 8 seconds to live, 9 seconds to live while the parent waits
local before = redis.call('HGET', KEYS[2], ARGV[2])
if not before or before == ARGV[3] then
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
if ok then
  redis.call('HINCRBY', KEYS[1], 'split_items', ARGV[5])
  if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
  end
else
  redis.call('HINCRBY', KEYS[1], 'split_failed', 1)
end
if tonumber(ARGV[6]) > tonumber(redis.call('HGET', KEYS[1], 'split_peak_mb') or '0') then
  redis.call('HSET', KEYS[1], 'split_peak_mb', ARGV[6])
end
local waits = redis.call('HGET', KEYS[4], 'status') == 'deferred'
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3]}) do
  redis.call('EXPIRE', key, waits and ARGV[9] or ARGV[8])
end
local known = redis.call('HMGET', KEYS[1], 'split_sealed', 'split_total', 'split_ended', 'split_queue')
if known[1] ~= '1' or known[2] ~= known[3] or not waits then
  return 1
end
local queue = cjson.decode(known[4])
redis.call('ZREM', queue['deferred'], ARGV[1])
redis.call('HSET', KEYS[4], 'status', 'queued', 'enqueued_at', ARGV[7])
redis.call('SADD', queue['queues'], queue['key'])
redis.call('LPUSH', queue['key'], ARGV[1])
return 2
