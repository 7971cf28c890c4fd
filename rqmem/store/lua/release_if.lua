-- Forget the owner of a job, unless the job has another owner by now.
-- KEYS: running   ARGV: job id, execution id
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or cjson.decode(owner)['execution'] ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
