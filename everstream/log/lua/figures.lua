-- The state of the whole service at one moment. ARGV: ns, then the queues' keys.
-- Returns the time in ms; the counters, each name followed by its value; the engines' unexpired statuses, sorted by
-- name; the number of queued generations; the bytes of the log; the number of open streams; for how many ms the oldest
-- queued generation has waited; the number of waiting validations; the workers' unexpired statuses; the bytes of topics.
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
local workers, oldest, validations = {}, now, 0
for at, found in ipairs(unexpired('workers', 'worker:')) do
  workers[at] = found[2]
  local ok, status = pcall(cjson.decode, found[2])
  if ok then streams = streams + (status.streams or 0) end
end
for at = 2, #ARGV do
  jobs = ARGV[at]
  if redis.call('EXISTS', jobs) == 1 then
    ensure_group()
    queued = queued + redis.call('XLEN', jobs) - redis.call('XPENDING', jobs, group)[1]
    for _, client in ipairs(redis.call('LRANGE', of_queue('turns'), 0, -1)) do
      -- Valkey makes a job's id from its clock, in ms.
      local queued_at = string.match(redis.call('LINDEX', waiting_key(client), 0) or '', '^%d+')
      oldest = math.min(oldest, tonumber(queued_at or now))
    end
  end
  for _, name in ipairs({'validations', 'long_validations'}) do
    validations = validations + redis.call('ZCOUNT', of_queue(name), now, '+inf')
  end
end
local bytes = tonumber(redis.call('GET', ns .. 'bytes') or 0)
local topic_bytes = tonumber(redis.call('GET', ns .. 'topic_bytes') or 0)
return {now, redis.call('HGETALL', ns .. 'counters'), statuses, queued, bytes, streams, now - oldest, validations, workers,
  topic_bytes}
