-- Run commands, but set fields only in hashes that exist: what has just been removed does not begin anew.
-- Returns the reply to each command; 0 for one that was left out.
-- ARGV: for each command: how many words, words
local replies, at = {}, 1
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  local sets = ARGV[at + 1] == 'HSET' and redis.call('EXISTS', ARGV[at + 2]) == 0
  replies[#replies + 1] = sets and 0 or redis.call(unpack(ARGV, at + 1, at + words))
  at = at + 1 + words
end
return replies
