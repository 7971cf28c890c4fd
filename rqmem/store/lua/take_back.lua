-- Forget a job that waits in its queue, as if it had never been enqueued. Returns 0 if it does not wait there.
-- KEYS: 1 job, 2 queue, 3 dependents of the job   ARGV: 1 job id
if redis.call('HGET', KEYS[1], 'status') ~= 'queued' or redis.call('LREM', KEYS[2], 1, ARGV[1]) == 0 then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[3])
return 1
