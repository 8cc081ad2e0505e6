-- The state of the whole service at one moment. ARGV: ns, then the queues' keys.
-- Returns the time in ms; the counters, each name followed by its value; the engines' unexpired statuses, sorted by
-- name; the number of queued generations; the bytes of the log; the number of open streams.
local now = now_ms()

local function unexpired(names, key)
  local found = {}
  for _, name in ipairs(redis.call('ZRANGE', ns .. names, now, '+inf', 'BYSCORE')) do
    local value = redis.call('GET', ns .. key .. name)
    if value then found[#found + 1] = {name, value} end
  end
  table.sort(found, function(one, other) return one[1] < other[1] end)
  return found
end

local statuses, streams, queued = {}, 0, 0
for at, found in ipairs(unexpired('engine_names', 'engine:')) do statuses[at] = found[2] end
for _, found in ipairs(unexpired('workers', 'streams:')) do streams = streams + found[2] end
for at = 2, #ARGV do
  jobs = ARGV[at]
  if redis.call('EXISTS', jobs) == 1 then
    ensure_group()
    queued = queued + redis.call('XLEN', jobs) - redis.call('XPENDING', jobs, group)[1]
  end
end
local bytes = tonumber(redis.call('GET', ns .. 'bytes') or 0)
return {now, redis.call('HGETALL', ns .. 'counters'), statuses, queued, bytes, streams}
