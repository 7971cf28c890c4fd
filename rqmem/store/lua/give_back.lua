-- Put a job that was taken and not begun back to the front of its queue, or behind a job that stood before it; it may be
-- repeated. Not one that was cancelled meanwhile: a worker of RQ would run it.
-- KEYS: 1 intermediate queue, 2 queue, 3 job   ARGV: 1 job id, 2 the id that stood before it, or empty
redis.call('LREM', KEYS[1], 0, ARGV[1])
redis.call('LREM', KEYS[2], 1, ARGV[1])
if redis.pcall('HGET', KEYS[3], 'status') == 'canceled' then
  return
end
if ARGV[2] == '' or redis.call('LINSERT', KEYS[2], 'AFTER', ARGV[2], ARGV[1]) < 1 then
  redis.call('LPUSH', KEYS[2], ARGV[1])
end
