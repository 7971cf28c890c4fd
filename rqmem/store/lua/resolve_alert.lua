-- End an open alert, once, if this worker has raised it.
-- KEYS: 1 open alerts, 2 stream of alerts
-- ARGV: 1 its field among the open ones, 2 worker, 3 alert (JSON), 4 alerts kept
-- Returns the entry's id, or nil.
local open = redis.call('HGET', KEYS[1], ARGV[1])
if not open or cjson.decode(open)['worker'] ~= ARGV[2] then
  return nil
end
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'alert', ARGV[3])
