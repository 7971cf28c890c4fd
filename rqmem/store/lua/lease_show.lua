-- needs lease_common
-- Have RQ show a taken job as running, with its owner; or hand it over: from then on it is an execution like one that
-- was never in a lease. Repeated, it changes nothing.
-- Returns 1: done, 0: the worker has not taken it, -1: it was deleted, or somebody has ended it before it was shown;
-- handed over, it is not taken any more either.
-- KEYS: 1 taken, 2 lease, 3 running, 4 worker's executions
-- ARGV: 1 RQ's prefix, 2 worker, 3 queue, 4 id, 5 when it was made, 6 execution, 7 start (text), 8 start (epoch),
--       9 now (epoch), 10 seconds that the records live, 11 owner, 12 1: hand it over,
--       13 prefix of the sets of what was put back, 14 prefix of runs, 15 prefix of their results,
--       16 seconds that a run lives, 17 the record of the job's run, or '', 18... its results
local P, taken, lease, id = ARGV[1], KEYS[1], KEYS[2], ARGV[4]
if not redis.call('LPOS', taken, id) then
  return ARGV[12] == '1' and owner_is(KEYS[3], id, ARGV[6]) and 1 or 0  -- it was handed over, and the reply was lost
end
local answer = 1
local shown = redis.call('HGET', lease, 'shown')
if not is_shown(shown, id) then
  local job = redis.call('HMGET', P .. ':job:' .. id, 'status', 'created_at')
  local was_there = leave_intermediate(P, ARGV[3], id)
  if job[1] == 'queued' and job[2] == ARGV[5] and was_there then
    add_start(P, KEYS[3], KEYS[4], ARGV[2], ARGV[3], id, ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
    if redis.call('HGET', lease, 'at') ~= id then
      redis.call('HDEL', lease, 'at_run')
    end
    redis.call('HSET', lease, 'shown', (shown or '') .. ' ' .. id .. ' ', 'at', id, 'execution', ARGV[6],
      'queue', ARGV[3], 'at_iso', ARGV[7], 'at_epoch', ARGV[8])
  else
    answer = -1
  end
end
if answer == 1 and ARGV[17] ~= '' then
  write_record(ARGV[14] .. id, ARGV[15] .. id, ARGV[17], ARGV[16], 18)
end
if ARGV[12] == '1' then
  redis.call('LREM', taken, 1, id)
  redis.call('ZREM', ARGV[13] .. ARGV[3], id)
  forget_shown(lease, id)
  if redis.call('HGET', lease, 'at') == id then
    redis.call('HDEL', lease, 'at', 'execution', 'queue', 'at_iso', 'at_epoch', 'at_run')
  end
end
return answer
