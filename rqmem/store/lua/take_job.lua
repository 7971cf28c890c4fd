-- Take one job from the front of the first of these queues that has one, as RQ's `dequeue_any`: ids whose job is gone
-- are dropped. The id goes to RQ's intermediate queue, so that it is not lost if its worker dies.
-- Returns {'suspended'}, {'empty'}, or the number of the queue (from 0), the id and all fields of the job.
-- KEYS: 1 suspended, 2 paused queues, 3... queues   ARGV: 1 prefix of jobs' keys, 2... names of the queues
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'suspended'}
end
local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  paused[name] = true
end
for number = 2, #ARGV do
  local queue = KEYS[number + 1]
  local id = not paused[ARGV[number]] and redis.call('LPOP', queue)
  while id do
    redis.call('RPUSH', queue .. ':intermediate', id)
    local job = redis.call('HGETALL', ARGV[1] .. id)
    if #job > 0 then
      return {number - 2, id, job}
    end
    redis.call('LREM', queue .. ':intermediate', -1, id)
    id = redis.call('LPOP', queue)
  end
end
return {'empty'}
