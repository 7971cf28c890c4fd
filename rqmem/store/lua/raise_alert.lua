-- Tell an alert, unless its rule and job type were told within the cool-down; then only count it.
-- The quiet key outlives the cool-down, so that the next one can say how many were not told: there is quiet
-- while it has more than that afterlife left. No clock but Redis' own.
-- KEYS: 1 quiet, 2 stream of alerts, 3 open alerts
-- ARGV: 1 alert (JSON), 2 cool-down (ms), 3 afterlife of the count (ms), 4 alerts kept,
--       5 its field among the open ones ('' for one that cannot end), 6 what stands there (JSON), 7 most open ones
-- Returns {entry id, how many were not told}, or nil.
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
