-- The generations that no engine has claimed, in queue order. ARGV: ns
if redis.call('EXISTS', jobs) == 0 then return {} end
ensure_group()
local last_delivered
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', jobs)) do
  for at = 1, #fields, 2 do
    if fields[at] == 'last-delivered-id' then last_delivered = fields[at + 1] end
  end
end
local waiting = {}
for _, job in ipairs(redis.call('XRANGE', jobs, '(' .. last_delivered, '+')) do waiting[#waiting + 1] = job[2][2] end
return waiting
