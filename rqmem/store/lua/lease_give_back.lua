-- needs lease_common
-- Put all taken jobs but one back to the front of their queues, in order. With one kept, the lease takes no more; with
-- none, it ends. Returns how many are in their queues again; -1: the lease is another one by now.
-- KEYS: 1 taken, 2 lease, 3 set of leases   ARGV: 1 RQ's prefix, 2 worker, 3 token, 4 id to keep, or '',
--       5 prefix of the sets of what was put back
local token = redis.call('HGET', KEYS[2], 'token')
if token and token ~= ARGV[3] then
  return -1
end
local count = put_back_all(ARGV[1], KEYS[1], KEYS[2], ARGV[5], ARGV[4])
if ARGV[4] == '' then
  close(ARGV[2], KEYS[1], KEYS[2], KEYS[3])
elseif token then
  redis.call('HSET', KEYS[2], 'recalled', '1')
end
return count
