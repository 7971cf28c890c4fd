-- Run commands in the name of an execution, if it still owns its job and nothing about the job is out of the ordinary.
-- The first error ends it: for want of memory or for a refusal of writes, that is the first command's, as in RQ's
-- transaction. Returns 0, and changes nothing, where it is; else the reply to each command.
-- KEYS: 1 running, 2 job, 3 started registry (for a claim: intermediate queue), 4 dependents (for a claim: queue)
-- ARGV: 1 what the commands do: 'begin', 'end' or 'claim', 2 job id, 3 execution (for a claim: worker); then for each
-- command: how many words, words
local raw = redis.call('HGET', KEYS[1], ARGV[2])
local owner = raw and cjson.decode(raw)
local job = redis.call('HMGET', KEYS[2], 'status', 'created_at')
if not job[2] then
  return 0
end
if ARGV[1] == 'claim' then
  if owner and owner['worker'] ~= ARGV[3] then
    return 0
  end
  if not owner and not redis.call('LPOS', KEYS[3], ARGV[2])
      and (job[1] ~= 'queued' or redis.call('LPOS', KEYS[4], ARGV[2])) then
    return 0
  end
elseif not owner or owner['execution'] ~= ARGV[3] or (ARGV[1] == 'begin' and job[1] ~= 'queued') then
  return 0
elseif ARGV[1] == 'end' and (job[1] ~= 'started' or not redis.call('ZSCORE', KEYS[3], ARGV[2] .. ':' .. ARGV[3])
    or redis.call('EXISTS', KEYS[4]) == 1) then
  return 0
end
local replies, at = {}, 4
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  replies[#replies + 1] = redis.call(unpack(ARGV, at + 1, at + words))
  at = at + 1 + words
end
return replies
