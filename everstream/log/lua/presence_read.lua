-- Who follows topics. ARGV: ns, topics. Returns for each what the web processes have said within their time.
local replies, now = {}, now_ms()
for at = 2, #ARGV do
  local key, found = ns .. 'present:' .. ARGV[at], {}
  local fields = redis.call('HGETALL', key)
  for index = 1, #fields, 2 do
    local due, said = string.match(fields[index + 1], '^(%d+) (.*)')
    if tonumber(due) > now then
      found[#found + 1] = said
    else
      redis.call('HDEL', key, fields[index])
    end
  end
  replies[#replies + 1] = found
end
return replies
