-- needs lease_common
-- End the lease of a dead worker, once. The job that it had begun becomes an ordinary run of that worker, which is
-- taken over as all such runs are; the others go back to the front of their queues.
-- Returns how many are in their queues again, and the id of the job that had begun, or ''; -1: the lease is another one
-- by now.
-- KEYS: 1 taken, 2 lease, 3 set of leases, 4 running, 5 worker's executions
-- ARGV: 1 RQ's prefix, 2 worker, 3 token, 4 now (epoch), 5 seconds that RQ's records of the run live,
--       6 prefix of the sets of what was put back, 7 prefix of runs, 8 seconds that a run lives
local P, taken, lease = ARGV[1], KEYS[1], KEYS[2]
local known = redis.call('HMGET', lease, 'token', 'at', 'execution', 'queue', 'at_iso', 'at_epoch', 'owner', 'shown',
  'at_run')
if known[1] ~= ARGV[3] then
  return -1
end
local id, begun = known[2], ''
if id and redis.call('LREM', taken, 1, id) == 1 then
  redis.call('ZREM', ARGV[6] .. known[4], id)
  local was_there = leave_intermediate(P, known[4], id)
  if is_shown(known[8], id) then
    begun = id
  elseif was_there and redis.call('HGET', P .. ':job:' .. id, 'status') == 'queued' then
    local owner = cjson.decode(known[7])
    owner['execution'], owner['queue'] = known[3], known[4]
    add_start(P, KEYS[4], KEYS[5], ARGV[2], known[4], id, known[3], known[5], known[6], ARGV[4], ARGV[5],
      cjson.encode(owner))
    begun = id
  end
end
if begun ~= '' and (known[9] or '') ~= '' and redis.call('EXISTS', ARGV[7] .. begun) == 0 then
  redis.call('HSET', ARGV[7] .. begun, unpack(cjson.decode(known[9])))
  redis.call('EXPIRE', ARGV[7] .. begun, ARGV[8])
end
local count = put_back_all(P, taken, lease, ARGV[6], '')
close(ARGV[2], taken, lease, KEYS[3])
return {count, begun}
