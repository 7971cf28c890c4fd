-- Move a job that somebody took and never began from the intermediate queue to the front of its queue, once. Not one
-- that a lease has: its worker, or who takes over from it, puts that back.
-- KEYS: 1 intermediate queue, 2 queue, 3 job, 4 set of leases   ARGV: 1 job id, 2 prefix of the lists of taken jobs
for _, worker in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  if redis.call('LPOS', ARGV[2] .. worker, ARGV[1]) then
    return 0
  end
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
if redis.pcall('HEXISTS', KEYS[3], 'data') ~= 1 or redis.call('HGET', KEYS[3], 'status') ~= 'queued' then
  return -1
end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
