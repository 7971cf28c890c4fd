-- Raise an alert. Within the cool-down of its rule and job type only count it.
-- The quiet key outlives the cool-down, so that the next alert can say how many were only counted: the cool-down lasts
-- while the key has more than that extra time left. Only the clock of Redis is used.
-- KEYS: 1 quiet, 2 stream of alerts, 3 open alerts
-- ARGV: 1 alert (JSON), 2 cool-down (ms), 3 extra time of the count (ms), 4 alerts kept,
--       5 its field among the open ones ('' for one that cannot end), 6 its record there (JSON), 7 the most open ones
-- Returns {entry id, how many were only counted}, or nil.
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[3]) then
  redis.call('INCR', KEYS[1])
  return nil
end
local suppressed = tonumber(redis.call('GET', KEYS[1]) or 0)
local alert = cjson.decode(ARGV[1])
alert['suppressed'] = suppressed
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'alert', cjson.encode(alert))
redis.call('SET', KEYS[1], 0, 'PX', tonumber(ARGV[2]) + tonumber(ARGV[3]))
if ARGV[5] ~= '' and redis.call('HLEN', KEYS[3]) < tonumber(ARGV[7]) then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
end
return {id, suppressed}
