-- Describe topics. ARGV: ns, owner, then their names. Returns for each {} if it does not exist, else {number of messages
-- that are kept, position of the first or '', field, value, ...}.
local replies = {}
for at = 3, #ARGV do
  local topic = ARGV[2] .. ':' .. ARGV[at]
  local found, shown = find_topic(topic), {}
  if found then
    local first = redis.call('XRANGE', messages_key(topic), '-', '+', 'COUNT', 1)[1]
    shown = {redis.call('XLEN', messages_key(topic)), first and string.match(first[1], '^%d+') or ''}
    for name, value in pairs(found) do
      if value then
        shown[#shown + 1], shown[#shown + 2] = name, value
      end
    end
  end
  replies[#replies + 1] = shown
end
return replies
