-- Read the logs of generations, each above a given entry: up to about max_bytes in all, and at least one entry.
-- ARGV: ns, max_bytes, then for each: generation, after
-- Returns for each {} if the generation is unknown or expired, else {top, n, entry, n, entry, ...}.
local left = tonumber(ARGV[2])

local function read(generation, after)
  local log = log_key(generation)
  if redis.call('EXISTS', generation_key(generation)) == 0 then return {} end
  local top = redis.call('XLEN', log)
  local found, step = {top}, 1
  while after < top and left > 0 do
    for _, each in ipairs(redis.call('XRANGE', log, '(' .. after .. '-0', '+', 'COUNT', step)) do
      local entry = each[2][2]
      left, after = left - #entry, after + 1
      if left < 0 and #found > 1 then return found end
      found[#found + 1], found[#found + 2] = after, entry
    end
    -- Small steps first: entries may be large.
    step = math.min(step * 2, 64)
  end
  return found
end

local function unknown() return {} end

local pages = {}
for at = 3, #ARGV, 2 do pages[#pages + 1] = guarded(ARGV[at], unknown, read, ARGV[at], tonumber(ARGV[at + 1])) end
return pages
