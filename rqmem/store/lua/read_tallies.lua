-- Read tallies without their histograms of durations and costs, which are most of what they hold. Changes nothing.
-- Returns a JSON text: a list with null for each key that does not exist, and for each other one
-- {"runs": 3, ..., "breaches": {"watch": 1}, "code_versions": {"v7": 3}, "peaks": [[buckets], [runs in each]], "needed": [[MB], [runs]]}
-- without those that are empty.
-- KEYS: tallies
local found = {}
for i = 1, #KEYS do
  local raw = redis.pcall('HGETALL', KEYS[i])  -- an error, of another type, has no length
  local sums, breaches, codes, buckets, counts, ceilings, needed = {}, {}, {}, {}, {}, {}, {}
  for j = 1, #raw, 2 do
    local name, value = raw[j], raw[j + 1]
    local colon = string.find(name, ':', 1, true)
    if not tonumber(value) then
      -- damaged: left out
    elseif not colon then
      sums[#sums + 1] = '"' .. name .. '":' .. value
    elseif string.sub(name, 1, 5) == 'peak:' then
      buckets[#buckets + 1], counts[#counts + 1] = string.sub(name, 6), value
    elseif string.sub(name, 1, 7) == 'needed:' then
      ceilings[#ceilings + 1], needed[#needed + 1] = string.sub(name, 8), value
    elseif string.sub(name, 1, 7) == 'breach:' then
      breaches[#breaches + 1] = '"' .. string.sub(name, 8) .. '":' .. value
    elseif string.sub(name, 1, 5) == 'code:' then
      codes[#codes + 1] = cjson.encode(string.sub(name, 6)) .. ':' .. value  -- a text of somebody's
    end
  end
  if breaches[1] then sums[#sums + 1] = '"breaches":{' .. table.concat(breaches, ',') .. '}' end
  if codes[1] then sums[#sums + 1] = '"code_versions":{' .. table.concat(codes, ',') .. '}' end
  if counts[1] then
    sums[#sums + 1] = '"peaks":[[' .. table.concat(buckets, ',') .. '],[' .. table.concat(counts, ',') .. ']]'
  end
  if needed[1] then
    sums[#sums + 1] = '"needed":[[' .. table.concat(ceilings, ',') .. '],[' .. table.concat(needed, ',') .. ']]'
  end
  found[i] = #raw > 0 and '{' .. table.concat(sums, ',') .. '}' or 'null'
end
return '[' .. table.concat(found, ',') .. ']'
