-- Claim jobs whose lease has expired, and begin them.
-- ARGV: ns, consumer, lease_ms, maximum number of jobs, then what `begin` is given. Returns what it returned for each.
local consumer, lease_ms, wanted = ARGV[2], ARGV[3], tonumber(ARGV[4])
local given = {unpack(ARGV, 5)}
local claimed, cursor = {}, '0-0'
if redis.call('EXISTS', jobs) == 0 then return claimed end
ensure_group()
-- One call scans only ten times COUNT pending entries, and those of live engines may come first.
repeat
  local reply = redis.call('XAUTOCLAIM', jobs, group, consumer, lease_ms, cursor, 'COUNT', wanted - #claimed)
  cursor = reply[1]
  for _, job in ipairs(reply[2]) do claimed[#claimed + 1] = {job[1], job[2][2]} end
until cursor == '0-0' or #claimed >= wanted
if #claimed > 0 then count('leases_taken_over', #claimed) end
local begun = {}
for _, job in ipairs(claimed) do begun[#begun + 1] = begin_guarded(job[1], job[2], given) end
return begun
