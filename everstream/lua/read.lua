-- Read a generation's log above an entry, up to about max_bytes, and at least one entry if there is one.
-- ARGV: ns, generation, after, max_bytes
-- Returns {} if the generation is unknown or expired, else {top, n, entry, n, entry, ...}.
local generation, after, max_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local log = log_key(generation)
if redis.call('EXISTS', generation_key(generation)) == 0 then return {} end
local top = redis.call('XLEN', log)
local found, bytes, step = {top}, 0, 1
while after < top and bytes < max_bytes do
  for _, each in ipairs(redis.call('XRANGE', log, '(' .. after .. '-0', '+', 'COUNT', step)) do
    local entry = each[2][2]
    bytes, after = bytes + #entry, after + 1
    if bytes > max_bytes and #found > 1 then return found end
    found[#found + 1], found[#found + 2] = after, entry
  end
  -- Small steps first: entries may be large.
  step = math.min(step * 2, 64)
end
return found
