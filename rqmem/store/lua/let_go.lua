-- Forget an execution that ends without an outcome: its claim, unless the job has another owner by now. If the job was
-- deleted, also what a heartbeat or the start of the execution has written since (every job of RQ has created_at).
-- KEYS: 1 running, 2 job   ARGV: 1 job id, 2 execution id
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and cjson.decode(owner)['execution'] == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if redis.call('HEXISTS', KEYS[2], 'created_at') == 0 then
  redis.call('DEL', KEYS[2])
end
return 1
