-- The unexpired statuses of all engines, sorted by name. ARGV: ns
local names = redis.call('ZRANGE', ns .. 'engine_names', now_ms(), '+inf', 'BYSCORE')
table.sort(names)
local statuses = {}
for _, name in ipairs(names) do
  local status = redis.call('GET', ns .. 'engine:' .. name)
  if status then statuses[#statuses + 1] = status end
end
return statuses
