-- The generations that no engine has claimed, in the order in which they will be: the lanes take turns. ARGV: ns
local lanes, found, round = {}, {}, 1
for _, lane in ipairs(redis.call('LRANGE', of_queue('turns'), 0, -1)) do
  lanes[#lanes + 1] = redis.call('LRANGE', waiting_key(lane), 0, -1)
end
while #lanes > 0 do
  local longer = {}
  for _, items in ipairs(lanes) do
    found[#found + 1] = string.match(items[round], ' (.*)')
    if items[round + 1] then longer[#longer + 1] = items end
  end
  lanes, round = longer, round + 1
end
return found
