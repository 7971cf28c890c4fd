-- Make another process the owner of a dead process's run, which it settles. Refused (0) if the job has another owner
-- by now.
-- KEYS: running   ARGV: 1 job id, 2 execution id, 3 host, 4 pid, 5 start time of the dead process, 6 the new owner
local raw = redis.call('HGET', KEYS[1], ARGV[1])
if not raw then
  return 0
end
local owner = cjson.decode(raw)
if owner['execution'] ~= ARGV[2] or owner['host'] ~= ARGV[3]
  or owner['pid'] ~= tonumber(ARGV[4]) or owner['start_time'] ~= tonumber(ARGV[5]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[6])
return 1
