-- Claim jobs whose engine has let their lease run out.
-- ARGV: ns, consumer, lease_ms, how many at most. Returns {job id, generation} for each.
local consumer, lease_ms, wanted = ARGV[2], ARGV[3], tonumber(ARGV[4])
local claimed, cursor = {}, '0-0'
if redis.call('EXISTS', jobs) == 0 then return claimed end
ensure_group()
-- One call looks at ten times its count of pending entries only, and those of living engines may come first.
repeat
  local reply = redis.call('XAUTOCLAIM', jobs, group, consumer, lease_ms, cursor, 'COUNT', wanted - #claimed)
  cursor = reply[1]
  for _, job in ipairs(reply[2]) do claimed[#claimed + 1] = {job[1], job[2][2]} end
until cursor == '0-0' or #claimed >= wanted
if #claimed > 0 then count('leases_taken_over', #claimed) end
return claimed
