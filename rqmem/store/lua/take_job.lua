-- Take one job from the front of the first of these queues that has one, as RQ's `dequeue_any`: ids whose job is gone
-- are dropped. The id goes to RQ's intermediate queue, so that it is not lost if its worker dies. Some ids are to be left
-- where they are: those that wait for room, which stand near the front.
-- Returns {'suspended'}, {'empty'}, or the number of the queue (from 0), the id and all fields of the job, and the id that
-- was left before it in the queue, if any.
-- KEYS: 1 suspended, 2 paused queues, 3... queues
-- ARGV: 1 prefix of jobs' keys, 2... names of the queues, one for each, then ids to leave
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'suspended'}
end
local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  paused[name] = true
end
local left = {}
for number = #KEYS, #ARGV do
  left[ARGV[number]] = true
end

local function take_from(queue)
  local passed, job = {}, {}
  local id = redis.call('LPOP', queue)
  while id do
    if left[id] then
      passed[#passed + 1] = id
    else
      redis.call('RPUSH', queue .. ':intermediate', id)
      job = redis.call('HGETALL', ARGV[1] .. id)
      if #job > 0 then
        break
      end
      redis.call('LREM', queue .. ':intermediate', -1, id)
    end
    id = redis.call('LPOP', queue)
  end
  for number = #passed, 1, -1 do
    redis.call('LPUSH', queue, passed[number])
  end
  return id, job, passed[#passed]
end

for number = 2, #KEYS - 1 do
  if not paused[ARGV[number]] then
    local id, job, before = take_from(KEYS[number + 1])
    if id then
      return {number - 2, id, job, before or ''}
    end
  end
end
return {'empty'}
