-- Read jobs as RQ has them, without the large parts of them. Changes nothing. Returns for each job: these fields of its
-- record, then the type and the traceback of its last result.
-- KEYS: for each job its record and its results   ARGV: 1 the most bytes of a field, 2 the most of a traceback, 3... fields
local most, longest = tonumber(ARGV[1]), tonumber(ARGV[2])
local fields = {}
for i = 3, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
local found = {}
for i = 1, #KEYS, 2 do
  local job = redis.pcall('HMGET', KEYS[i], unpack(fields))
  if job.err then  -- of another type: as if it were not there
    job = {}
    for j = 1, #fields do
      job[j] = false
    end
  end
  for j = 1, #fields do
    if job[j] and #job[j] > most then
      job[j] = string.sub(job[j], 1, most)
    end
  end
  local kind, raised = false, false
  if longest > 0 and job[1] then
    local last = redis.pcall('XREVRANGE', KEYS[i + 1], '+', '-', 'COUNT', 1)[1]
    local entry = last and last[2] or {}
    for j = 1, #entry, 2 do
      if entry[j] == 'type' then
        kind = entry[j + 1]
      elseif entry[j] == 'exc_string' then
        raised = #entry[j + 1] <= longest and entry[j + 1] or ''
      end
    end
  end
  job[#fields + 1], job[#fields + 2] = kind, raised
  found[#found + 1] = job
end
return found
