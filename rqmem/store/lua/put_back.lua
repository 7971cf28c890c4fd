-- Move a job that somebody took and never began from the intermediate queue to the front of its queue, once.
-- KEYS: intermediate queue, queue, job   ARGV: job id
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
if redis.call('HGET', KEYS[3], 'status') ~= 'queued' then
  return -1
end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
