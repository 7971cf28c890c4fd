-- Raise the peak of a run to that of an execution that could not save it.   KEYS: run   ARGV: peak in MB
if redis.call('EXISTS', KEYS[1]) == 1 and
  tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 'peak_mb') or '0') then
  redis.call('HSET', KEYS[1], 'peak_mb', ARGV[1])
end
return 1
