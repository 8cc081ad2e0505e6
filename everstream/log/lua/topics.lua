-- Shared by the scripts of topics, after the prelude. A topic's id is `<owner>:<name>`; names have no colon.
--
-- A position is a number of the one clock that all topics share: microseconds since 1970, but always more than the last.
local clock_key = ns .. 'topics_clock'
local topic_fields = {
  'type', 'born', 'floor', 'top', 'messages', 'bytes', 'history', 'latest', 'ttl_s', 'expires_at', 'due_ms', 'closed',
  'closed_by', 'seq', 'client', 'implicit', 'forks', 'fork_of', 'fork', 'deleted',
}
local topic_bytes, message_bytes, trim_at_most = 1024, 64, 4096

local function topic_key(topic) return ns .. 'topic:' .. topic end
local function messages_key(topic) return ns .. 'messages:' .. topic end
local function ids_key(topic) return ns .. 'message_ids:' .. topic end
local function producers_key(topic) return ns .. 'producers:' .. topic end
local function owner_of(topic) return string.match(topic, '^(.*):') end
local function name_of(topic) return string.match(topic, '[^:]*$') end
local function topics_key(owner) return ns .. 'topics:' .. owner end
local function gone_key(owner) return ns .. 'gone_topics:' .. owner end

-- Numbers this large lose digits with tostring.
local function digits(number) return string.format('%.0f', number) end

local function last_position() return tonumber(redis.call('HGET', clock_key, 'last') or 0) end

-- The first of `count` new positions.
local function take_positions(count)
  local time = redis.call('TIME')
  local first = math.max(last_position() + 1, time[1] * 1000000 + time[2])
  redis.call('HSET', clock_key, 'last', digits(first + count - 1))
  return first
end

-- Tell all followers. The messages are numbered, so that a web process notices when it has missed one. `entries` is
-- empty when the topic has ended.
local function announce(topic, first, entries)
  count('topic_messages', #entries)
  local number = redis.call('HINCRBY', clock_key, 'sent', 1)
  redis.call('PUBLISH', ns .. 'topics_live',
    '[' .. number .. ',' .. cjson.encode(topic) .. ',' .. digits(first) .. ',[' .. table.concat(entries, ',') .. ']]')
end

local function account_topic(client, bytes)
  redis.call('INCRBY', ns .. 'topic_bytes', bytes)
  if tonumber(redis.call('ZINCRBY', ns .. 'topic_client_bytes', bytes, client)) <= 0 then
    redis.call('ZREM', ns .. 'topic_client_bytes', client)
  end
end

-- Topics that are gone, and when: for a while their followers are told so. Those that are not remembered any more count
-- as the followers' own.
local remembered = 1000
local function remember_gone(topic, position)
  local key = gone_key(owner_of(topic))
  redis.call('ZADD', key, digits(position), name_of(topic))
  local excess = redis.call('ZCARD', key) - remembered
  if excess > 0 then
    local oldest = redis.call('ZRANGE', key, excess - 1, excess - 1, 'WITHSCORES')
    redis.call('HSET', ns .. 'gone_before', owner_of(topic), digits(oldest[2]))
    redis.call('ZREMRANGEBYRANK', key, 0, excess - 1)
  end
end

local purge

local function release_source(source)
  local known = redis.call('HMGET', topic_key(source), 'client', 'fork_of', 'deleted')
  if not known[1] then return end
  if redis.call('HINCRBY', topic_key(source), 'forks', -1) <= 0 and known[3] then
    purge(source, {client = known[1], fork_of = known[2], bytes = 0, deleted = '1'})
  end
end

-- Remove a topic and its messages. Its name stays blocked while it has forks.
purge = function(topic, found)
  redis.call('UNLINK', messages_key(topic), ids_key(topic), producers_key(topic))
  if not found.deleted then
    local position = take_positions(1)
    remember_gone(topic, position)
    announce(topic, position, {})
  end
  redis.call('ZREM', topics_key(owner_of(topic)), name_of(topic))
  redis.call('ZREM', ns .. 'topics_due', topic)
  if not found.deleted and tonumber(found.forks or 0) > 0 then
    redis.call('HSET', topic_key(topic), 'deleted', '1', 'bytes', 0)
    account_topic(found.client, -found.bytes)
    return
  end
  redis.call('UNLINK', topic_key(topic))
  account_topic(found.client, -(found.bytes + topic_bytes))
  if found.fork_of then release_source(found.fork_of) end
end

-- Someone reads or writes it: a time to live begins again.
local function keep_alive(topic, found)
  if not found.ttl_s then return end
  local due = now_ms() + found.ttl_s * 1000
  redis.call('HSET', topic_key(topic), 'due_ms', digits(due))
  redis.call('ZADD', ns .. 'topics_due', digits(due), topic)
end

-- A topic's fields, each of them a string or false; nil if it does not exist or has expired.
local function find_topic(topic)
  local values = redis.call('HMGET', topic_key(topic), unpack(topic_fields))
  if not values[1] then return nil end
  local found = {}
  for at, name in ipairs(topic_fields) do found[name] = values[at] end
  if found.due_ms and not found.deleted and tonumber(found.due_ms) <= now_ms() then
    -- An open stream reads it, although nothing comes.
    if found.ttl_s and redis.call('EXISTS', ns .. 'present:' .. topic) == 1 then
      keep_alive(topic, found)
    else
      purge(topic, found)
      return nil
    end
  end
  return found
end

local function sweep_topics()
  for _, topic in ipairs(redis.call('ZRANGE', ns .. 'topics_due', '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, 64)) do
    if find_topic(topic) then
      local due = redis.call('HGET', topic_key(topic), 'due_ms')
      redis.call('ZADD', ns .. 'topics_due', due, topic)
    else
      redis.call('ZREM', ns .. 'topics_due', topic)
    end
  end
end

local function size_of(message) return #message[2][2] + #(message[2][4] or '') + message_bytes end

-- Forget a topic's oldest messages. Returns how many bytes they took.
local function trim_topic(topic, found, count)
  local key, freed, ids = messages_key(topic), 0, {}
  local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', count)
  if #oldest == 0 then return 0 end
  for _, message in ipairs(oldest) do
    freed = freed + size_of(message)
    if (message[2][4] or '') ~= '' then ids[#ids + 1] = message[2][4] end
  end
  if #ids > 0 then redis.call('HDEL', ids_key(topic), unpack(ids)) end
  redis.call('XTRIM', key, 'MAXLEN', redis.call('XLEN', key) - #oldest)
  found.floor = string.match(oldest[#oldest][1], '^%d+')
  found.bytes = found.bytes - freed
  redis.call('HSET', topic_key(topic), 'floor', found.floor, 'bytes', digits(found.bytes))
  account_topic(found.client, -freed)
  return freed
end

-- Whether there is room for more bytes of a client. It may have as many as are free after it, so that there is always
-- something left for another. `most`: of all topics; `own`: the client's own limit, or nil.
local function has_room(client, bytes, most, own)
  local total = tonumber(redis.call('GET', ns .. 'topic_bytes') or 0)
  local used = tonumber(redis.call('ZSCORE', ns .. 'topic_client_bytes', client) or 0)
  return used + bytes <= math.min(most - total - bytes, own or most)
end

-- `limits`: {most, own}. Makes room for a topic that keeps a limited history by forgetting its oldest messages.
local function make_room(topic, found, bytes, limits)
  for _ = 1, trim_at_most do
    if has_room(found.client, bytes, limits[1], limits[2]) then return true end
    if not found.history or trim_topic(topic, found, 16) == 0 then return false end
  end
  return false
end

-- Append messages, each {entry, id or '', Unix ms when it expires or 0}. Returns the positions of all of them; those of
-- messages whose id is known are the earlier ones. Returns nil if there is no room.
local function append_messages(topic, found, messages, limits)
  local positions, new, bytes, seen = {}, {}, 0, {}
  for at, message in ipairs(messages) do
    local id = message[2]
    local known = id ~= '' and (seen[id] or redis.call('HGET', ids_key(topic), id))
    if known then
      positions[at] = known
    else
      new[#new + 1] = at
      if id ~= '' then seen[id] = at end
      bytes = bytes + #message[1] + #id + message_bytes
    end
  end
  if #new == 0 then return positions end
  if not make_room(topic, found, bytes, limits) then return nil end
  local key, first, entries = messages_key(topic), take_positions(#new), {}
  for i, at in ipairs(new) do
    local entry, id, expires_ms = unpack(messages[at])
    local position = digits(first + i - 1)
    local arguments = {'entry', entry}
    if id ~= '' or expires_ms > 0 then arguments = {'entry', entry, 'id', id} end
    if expires_ms > 0 then arguments[5], arguments[6] = 'expires', digits(expires_ms) end
    redis.call('XADD', key, position .. '-0', unpack(arguments))
    if id ~= '' then redis.call('HSET', ids_key(topic), id, position) end
    positions[at], entries[i] = position, entry
  end
  for at = 1, #messages do
    if type(positions[at]) == 'number' then positions[at] = positions[positions[at]] end
  end
  found.top, found.bytes = digits(first + #new - 1), found.bytes + bytes
  redis.call('HSET', topic_key(topic), 'top', found.top, 'bytes', digits(found.bytes))
  redis.call('HINCRBY', topic_key(topic), 'messages', #new)
  account_topic(found.client, bytes)
  redis.call('ZADD', topics_key(owner_of(topic)), found.top, name_of(topic))
  if found.history then
    local excess = redis.call('XLEN', key) - found.history
    while excess > 0 do
      trim_topic(topic, found, math.min(excess, trim_at_most))
      excess = excess - trim_at_most
    end
  end
  announce(topic, first, entries)
  return positions
end

local function close_topic(topic, found, closed_by)
  found.closed = digits(take_positions(1))
  redis.call('HSET', topic_key(topic), 'closed', found.closed, 'closed_by', closed_by)
  redis.call('ZADD', topics_key(owner_of(topic)), found.closed, name_of(topic))
  announce(topic, tonumber(found.closed), {})
end

-- Make a topic. `config`: a map of the fields that the caller sets.
local function make_topic(topic, client, config)
  local born = digits(take_positions(1))
  local found = {born = born, floor = '0', top = born, bytes = 0, client = client}
  for name, value in pairs(config) do found[name] = value end
  local pairs_of = {}
  for name, value in pairs(found) do
    pairs_of[#pairs_of + 1] = name
    pairs_of[#pairs_of + 1] = tostring(value)
  end
  redis.call('HSET', topic_key(topic), unpack(pairs_of))
  redis.call('ZADD', topics_key(owner_of(topic)), born, name_of(topic))
  if found.due_ms then redis.call('ZADD', ns .. 'topics_due', found.due_ms, topic) end
  account_topic(client, topic_bytes)
  keep_alive(topic, found)
  return found
end
