-- Add entries to the story of a job. If it is too long, its first and last entries stay, and a mark between them.
-- KEYS: 1 story
-- ARGV: 1 how many of the first ones stay, 2 how many in all, 3 the mark, 4... entries, oldest first
local first, most, mark = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
for i = 4, #ARGV do
  redis.call('RPUSH', KEYS[1], ARGV[i])
end
if redis.call('LLEN', KEYS[1]) > most then
  local begun = redis.call('LRANGE', KEYS[1], 0, first - 1)
  redis.call('LTRIM', KEYS[1], first + 1 - most, -1)
  redis.call('LPUSH', KEYS[1], mark)
  for i = #begun, 1, -1 do
    redis.call('LPUSH', KEYS[1], begun[i])
  end
end
return 1
