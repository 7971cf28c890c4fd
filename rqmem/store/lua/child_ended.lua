-- needs children_common
-- Count that a child of a split job has ended. The last child releases its parent, which then gathers. Repeated, it
-- changes nothing. Returns 0: nobody waits for the child, 1: counted, 2: the parent was released.
-- Nobody waits for a child of an earlier run that ends late: another job has its id by now.
-- KEYS: 1 children, 2 gathered, 3 child's run, 4 child job, 5 jobs whose children have all ended
-- ARGV: 1 parent id, 2 number of the child, 3 outcome ('ok' or what went wrong), 4 result, 5 peak in MB,
--       6 now (text), 7 seconds to live, 8 now (epoch), 9 seconds to live while the parent waits,
--       10 stages from this number are gather's, whose items are results, 11 when the child was made (text),
--       12 how many jobs whose children have ended are kept, 13 prefix of runs, 14 prefix of RQ's jobs
local made = redis.call('HGET', KEYS[4], 'created_at')
if made and made ~= ARGV[11] then
  return 0
end
local ledger = {children = KEYS[1], gathered = KEYS[2], ended = KEYS[5], runs = ARGV[13], jobs = ARGV[14]}
local sums = {ended = 0, failed = 0, items = 0, peak = tonumber(ARGV[5])}
if not note_end(ledger, ARGV[2], ARGV[3], ARGV[4], sums) then
  return 0
end
-- The items of the child itself, in all its executions; its own children were counted before. A child that failed may
-- run again, so its run keeps how many of its items were counted.
local items, counted = 0, 0
local fields = redis.call('HGETALL', KEYS[3])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  local stage = string.match(name, '^items:(%d+)$')
  if name == 'items_unsaved' or (stage and tonumber(stage) < tonumber(ARGV[10])) then
    items = items + tonumber(value)
  elseif name == 'items_told' then
    counted = tonumber(value)
  elseif name == 'peak_mb' then
    sums.peak = math.max(sums.peak, tonumber(value))
  end
end
if items > counted then
  sums.items = items - counted
  if ARGV[3] ~= 'ok' then
    redis.call('HSET', KEYS[3], 'items_told', items)
  end
end
local at = {iso = ARGV[6], epoch = ARGV[8], keep = ARGV[7], waiting = ARGV[9], kept = ARGV[12]}
return tell_parent(ledger, ARGV[1], sums, at) and 2 or 1
