-- The generations that no engine has claimed, in the order in which they will be if no client has a limit of its own: the
-- clients take turns. ARGV: ns
local clients, found, round = {}, {}, 1
for _, client in ipairs(redis.call('LRANGE', of_queue('turns'), 0, -1)) do
  local items = redis.call('LRANGE', waiting_key(client), 0, -1)
  if #items > 0 then clients[#clients + 1] = items end
end
while #clients > 0 do
  local longer = {}
  for _, items in ipairs(clients) do
    found[#found + 1] = string.match(items[round], ' (.*)')
    if items[round + 1] then longer[#longer + 1] = items end
  end
  clients, round = longer, round + 1
end
return found
