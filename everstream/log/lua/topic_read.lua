-- Read topics, each request from a position on. ARGV: ns, max bytes, and in MessagePack the requests, each {owner,
-- exact names, patterns of names, from, where}. A pattern is an array of its parts. `from`: `after` a position that a client has seen,
-- `since` a position, the `last` messages, or `now`; `where` is that position or number.
-- Returns for each {position, reason of a reset or '', 'more' or '', 'closed' or '', topic name, position, entry, ...}:
-- up to which position the topics were read; why what follows may not be contiguous with what the client has seen;
-- whether there is more; whether the one topic of this request was closed and has been read to its end; the messages in
-- order. `last` is of each topic.
local max_bytes, requests = tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3])
-- All other requests wait while names are compared.
local most_topics, most_compared = 1000, 20000

local function parts_of(name)
  local parts = {}
  for part in string.gmatch(name, '[^/]+') do parts[#parts + 1] = part end
  return parts
end

-- A pattern is an array of parts, of which one at most is `**`. From there on, they are compared from the end.
local function fits(parts, pattern)
  local shift = 0
  for at, wanted in ipairs(pattern) do
    if wanted == '**' then
      shift = #parts - #pattern
      if shift < -1 then return false end
    elseif wanted ~= '*' and wanted ~= parts[at + shift] or not parts[at + shift] then
      return false
    end
  end
  return #parts == #pattern + shift
end

local function matches(request, name)
  local parts = parts_of(name)
  for _, pattern in ipairs(request[3]) do
    if fits(parts, pattern) then return true end
  end
  return false
end

-- The topics of a request that have something after a position, the last written first, and whether these are all.
local function names_of(request, after)
  local names, known = {}, {}
  for _, name in ipairs(request[2]) do
    if not known[name] then names[#names + 1], known[name] = name, true end
  end
  if #request[3] == 0 then return names, true end
  local most = math.floor(most_compared / #request[3])
  local changed = redis.call('ZRANGE', topics_key(request[1]), '+inf', '(' .. digits(after), 'BYSCORE', 'REV',
    'LIMIT', 0, most)
  for _, name in ipairs(changed) do
    if not known[name] and matches(request, name) then
      if #names >= most_topics then return names, false end
      names[#names + 1], known[name] = name, true
    end
  end
  return names, #changed < most
end

-- Whether topics that the client may not have read to their end are gone. Who follows a topic by its name is told in any
-- case. `found`: the topics that there are.
local function has_lost_topics(request, after, found)
  local forgets = after < tonumber(redis.call('HGET', ns .. 'gone_before', request[1]) or 0)
  if forgets and #request[3] > 0 then return true end
  local exact = {}
  for _, name in ipairs(request[2]) do
    exact[name] = true
    if forgets and not (found[name] and tonumber(found[name].born) <= after) then return true end
  end
  for _, name in ipairs(redis.call('ZRANGE', gone_key(request[1]), '(' .. digits(after), '+inf', 'BYSCORE')) do
    if exact[name] then return true end
    if matches(request, name) then
      local top = redis.call('HGET', gone_tops_key(request[1]), name)
      if not top or after < tonumber(top) then return true end
    end
  end
  return false
end

local function is_current(message, now)
  return not message[2][6] or tonumber(message[2][6]) > now
end

local function position_of(message) return tonumber(string.match(message[1], '^%d+')) end

-- A fork's messages have the positions of its source's.
local function in_order(one, other)
  return one[1] < other[1] or (one[1] == other[1] and one[2] < other[2])
end

-- The newest messages: up to `count`, and that of each topic that greets with it.
-- All topics together have bounds, and each its share of them.
local most_newest, most_newest_bytes = 5000, 4 * 1024 * 1024
local function newest(request, names, found, count)
  local messages, now, total = {}, now_ms(), 0
  local most, most_bytes = math.max(1, math.floor(most_newest / #names)), most_newest_bytes / #names
  for _, name in ipairs(names) do
    local wanted, key, before, bytes, step = math.min(count, most), messages_key(request[1] .. ':' .. name), '+', 0, 1
    if found[name].latest == '1' then wanted = 1 end
    local left, average = wanted, 0
    while left > 0 and bytes + average <= most_bytes and total < most_newest_bytes do
      step = math.min(step, left, math.max(1, math.floor((most_bytes - bytes) / math.max(1, average))))
      local page = redis.call('XREVRANGE', key, before, '-', 'COUNT', step)
      for _, message in ipairs(page) do
        bytes, total = bytes + #message[2][2], total + #message[2][2]
        if is_current(message, now) then messages[#messages + 1] = {position_of(message), name, message[2][2]} end
      end
      if #page < step then break end
      left, before = left - step, '(' .. page[#page][1]
      average, step = bytes / (wanted - left), math.min(4 * step, 64)
    end
  end
  table.sort(messages, in_order)
  return messages
end

local function cut_to_bytes(messages)
  local left = max_bytes
  for at, message in ipairs(messages) do
    left = left - #message[3]
    if left < 0 and at > 1 and message[1] ~= messages[at - 1][1] then
      for index = #messages, at, -1 do messages[index] = nil end
      return true
    end
  end
  return false
end

-- All messages after a position, oldest first; some of them, if there are many: then also the position up to which.
local function following(request, names, after)
  local messages, now, bound = {}, now_ms(), nil
  local most, most_bytes = math.max(4, math.floor(512 / #names)), max_bytes / #names
  for _, name in ipairs(names) do
    local key, from, count, bytes, step = messages_key(request[1] .. ':' .. name), after, 0, 0, 1
    local page
    repeat
      page = redis.call('XRANGE', key, '(' .. digits(from) .. '-0', '+', 'COUNT', step)
      for _, message in ipairs(page) do
        bytes = bytes + #message[2][2]
        if is_current(message, now) then messages[#messages + 1] = {position_of(message), name, message[2][2]} end
      end
      local is_full = #page == step
      if is_full then from = position_of(page[#page]) end
      count, step = count + #page, math.min(4 * step, 64)
    until not is_full or count >= most or bytes >= most_bytes
    if #page > 0 and from == position_of(page[#page]) then bound = math.min(bound or from, from) end
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
  local names, are_all = names_of(request, after)
  local is_greeting = from == 'last' or from == 'now'
  if not are_all and not is_greeting then return reply(now, 'too_many_topics', false, '', {}) end
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
  elseif is_resumed and after > 0 and after < tonumber(redis.call('HGET', clock_key, 'born') or 0) then
    reset = 'lost'
  elseif is_resumed and after > 0 and has_lost_topics(request, after, found) then
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
