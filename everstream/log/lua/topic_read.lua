-- Read topics, each request from a position on. ARGV: ns, max bytes, and in MessagePack the requests, each {owner,
-- exact names, patterns of names, from, where}. Patterns are Lua's. `from`: `after` a position that a client has seen,
-- `since` a position, the `last` messages, or `now`; `where` is that position or number.
-- Returns for each {position, reason of a reset or '', 'more' or '', 'closed' or '', topic name, position, entry, ...}:
-- up to which position the topics were read; why what follows may not be contiguous with what the client has seen;
-- whether there is more; whether the one topic of this request was closed and has been read to its end; the messages in
-- order. `last` is of each topic.
local max_bytes, requests = tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3])
-- Every other request waits while many topics are looked at.
local most_topics = 2000

-- The topics of a request that have something after a position, or all of them; and whether there are too many.
local function names_of(request, after)
  local names, known = {}, {}
  for _, name in ipairs(request[2]) do
    if not known[name] then names[#names + 1], known[name] = name, true end
  end
  if #request[3] == 0 then return names, false end
  local changed = redis.call('ZRANGE', topics_key(request[1]), '(' .. digits(after), '+inf', 'BYSCORE', 'LIMIT', 0,
    most_topics + 1)
  if #changed > most_topics then return names, true end
  for _, name in ipairs(changed) do
    for _, pattern in ipairs(request[3]) do
      if not known[name] and string.find(name, pattern) then names[#names + 1], known[name] = name, true end
    end
  end
  return names, false
end

local function is_wanted(request, name)
  for _, exact in ipairs(request[2]) do
    if exact == name then return true end
  end
  for _, pattern in ipairs(request[3]) do
    if string.find(name, pattern) then return true end
  end
  return false
end

-- Whether topics that the client may not have read to their end are gone.
local function has_lost_topics(request, after)
  if after < tonumber(redis.call('HGET', ns .. 'gone_before', request[1]) or 0) then return true end
  for _, name in ipairs(redis.call('ZRANGE', gone_key(request[1]), '(' .. digits(after), '+inf', 'BYSCORE')) do
    if is_wanted(request, name) then return true end
  end
  return false
end

local function is_current(message, now)
  return not message[2][6] or tonumber(message[2][6]) > now
end

local function position_of(message) return tonumber(string.match(message[1], '^%d+')) end

local function in_order(one, other) return one[1] < other[1] end

-- The newest messages: up to `count`, and that of each topic that greets with it.
local function newest(request, names, found, count)
  local messages, now = {}, now_ms()
  for _, name in ipairs(names) do
    local wanted = count
    if found[name].latest == '1' then wanted = 1 end
    if wanted > 0 then
      local key = messages_key(request[1] .. ':' .. name)
      for _, message in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', wanted)) do
        if is_current(message, now) then messages[#messages + 1] = {position_of(message), name, message[2][2]} end
      end
    end
  end
  table.sort(messages, in_order)
  return messages
end

local function cut_to_bytes(messages)
  local left = max_bytes
  for at, message in ipairs(messages) do
    left = left - #message[3]
    if left < 0 and at > 1 then
      for index = #messages, at, -1 do messages[index] = nil end
      return true
    end
  end
  return false
end

-- All messages after a position, oldest first; some of them, if there are many.
local function following(request, names, after)
  local messages, now, bound, step = {}, now_ms(), nil, math.max(4, math.floor(512 / #names))
  for _, name in ipairs(names) do
    local key = messages_key(request[1] .. ':' .. name)
    local page, size = redis.call('XRANGE', key, '(' .. digits(after) .. '-0', '+', 'COUNT', step), 0
    for at, message in ipairs(page) do
      size = size + #message[2][2]
      if is_current(message, now) then messages[#messages + 1] = {position_of(message), name, message[2][2]} end
    end
    if #page == step then
      local last = position_of(page[#page])
      bound = math.min(bound or last, last)
    end
  end
  table.sort(messages, in_order)
  if bound then
    while #messages > 0 and messages[#messages][1] > bound do messages[#messages] = nil end
  end
  return messages, bound
end

local function reply(position, reset, more, ended, messages)
  local out = {digits(position), reset, more and 'more' or '', ended}
  for _, message in ipairs(messages) do
    out[#out + 1], out[#out + 2], out[#out + 3] = message[2], digits(message[1]), message[3]
  end
  return out
end

local function read(request)
  local from, where, now = request[4], tonumber(request[5]), last_position()
  local is_resumed = from == 'after'
  local after = (is_resumed or from == 'since') and where or 0
  local names, has_too_many = names_of(request, after)
  if has_too_many and from ~= 'now' then return reply(now, 'too_many_topics', false, '', {}) end
  local found, there, reset = {}, {}, ''
  for _, name in ipairs(names) do
    local topic = request[1] .. ':' .. name
    found[name] = find_topic(topic)
    if found[name] and found[name].deleted then found[name] = nil end
    if found[name] then
      keep_alive(topic, found[name])
      there[#there + 1] = name
      if is_resumed and after > 0 and after < tonumber(found[name].floor) and found[name].latest ~= '1' then
        reset = 'history'
      end
    end
  end
  -- Read again: a topic may have expired just now.
  now = last_position()
  if is_resumed and after > now then
    after, reset = now, 'lost'
  elseif is_resumed and after > 0 and has_lost_topics(request, after) then
    reset = reset ~= '' and reset or 'deleted'
  end
  local messages, bound
  if #there == 0 then
    messages = {}
  elseif is_resumed or from == 'since' then
    messages, bound = following(request, there, after)
  else
    messages = newest(request, there, found, from == 'last' and where or 0)
  end
  local is_cut = cut_to_bytes(messages)
  local more = is_cut or bound ~= nil
  local position = now
  if more then position = is_cut and messages[#messages][1] or bound end
  local only = #request[2] == 1 and #request[3] == 0 and request[2][1]
  local ended = ''
  if only and not more then
    if found[only] and found[only].closed then ended = 'closed' end
  end
  return reply(position, reset, more, ended, messages)
end

local replies = {}
for at, request in ipairs(requests) do replies[at] = read(request) end
return replies
