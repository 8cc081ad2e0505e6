-- Shared by the scripts of topics, after the prelude. A topic's id is `<owner>:<name>`; names have no colon.
--
-- A position is a number of the one clock that all topics share: microseconds since 1970, but always more than the last.
-- The clock's `born` is its first one: who has seen an earlier one has seen what the log has lost.
local clock_key = ns .. 'topics_clock'
local topic_fields = {
  'type', 'born', 'floor', 'top', 'messages', 'bytes', 'history', 'latest', 'ttl_s', 'expires_at', 'due_ms', 'closed',
  'closed_by', 'seq', 'client', 'implicit', 'forks', 'fork_of', 'fork', 'deleted', 'unfreeable',
}
-- Valkey's approximate overhead. A topic's `bytes` are those of its messages and producers, `unfreeable` the latter alone.
local topic_bytes, message_bytes, producer_bytes = 1024, 64, 64
local trim_at_most, at_once = 4096, 64
-- Of a topic. One more, and the one that has been silent longest is forgotten.
local most_producers = 1000

local function topic_key(topic) return ns .. 'topic:' .. topic end
local function messages_key(topic) return ns .. 'messages:' .. topic end
local function ids_key(topic) return ns .. 'message_ids:' .. topic end
local function producers_key(topic) return ns .. 'producers:' .. topic end
local function producers_heard_key(topic) return ns .. 'producers_heard:' .. topic end
local function owner_of(topic) return string.match(topic, '^(.*):') end
local function name_of(topic) return string.match(topic, '[^:]*$') end
local function topics_key(owner) return ns .. 'topics:' .. owner end
local function gone_key(owner) return ns .. 'gone_topics:' .. owner end
local function gone_tops_key(owner) return ns .. 'gone_tops:' .. owner end

-- Numbers this large lose digits with tostring.
local function digits(number) return string.format('%.0f', number) end

local function last_position() return tonumber(redis.call('HGET', clock_key, 'last') or 0) end

-- A script that fails half-way keeps its writes, so each that others would see is noted, with the command that takes it
-- back.
local written = {}
local function write(undo, ...)
  redis.call(...)
  written[#written + 1] = undo
end

local function all_or_nothing(action, ...)
  local ok, result = pcall(action, ...)
  if ok then return result end
  for at = #written, 1, -1 do redis.pcall(unpack(written[at])) end
  redis.pcall('ZREMRANGEBYSCORE', ns .. 'topic_client_bytes', '-inf', 0)
  -- Raise a table, so that the error's code stays in front.
  error({err = type(result) == 'table' and result.err or result})
end

-- The first of `count` new positions.
local function take_positions(count)
  local time, last = redis.call('TIME'), redis.call('HGET', clock_key, 'last')
  local first = math.max((last or 0) + 1, time[1] * 1000000 + time[2])
  redis.call('HSET', clock_key, 'last', digits(first + count - 1))
  if not last then redis.call('HSET', clock_key, 'born', digits(first)) end
  return first
end

-- Tell all followers. The messages are numbered, so that a web process notices when it has missed one. `entries` is
-- empty when the topic has ended.
local function announce(topic, first, entries)
  local number = redis.call('HINCRBY', clock_key, 'sent', 1)
  redis.call('PUBLISH', ns .. 'topics_live',
    '[' .. number .. ',' .. cjson.encode(topic) .. ',' .. digits(first) .. ',[' .. table.concat(entries, ',') .. ']]')
  count('topic_messages', #entries)
end

local function account_topic(client, bytes)
  redis.call('INCRBY', ns .. 'topic_bytes', bytes)
  if tonumber(redis.call('ZINCRBY', ns .. 'topic_client_bytes', bytes, client)) <= 0 then
    redis.call('ZREM', ns .. 'topic_client_bytes', client)
  end
end

local function charge(client, bytes)
  write({'INCRBY', ns .. 'topic_bytes', -bytes}, 'INCRBY', ns .. 'topic_bytes', bytes)
  write({'ZINCRBY', ns .. 'topic_client_bytes', -bytes, client}, 'ZINCRBY', ns .. 'topic_client_bytes', bytes, client)
end

-- Topics that are gone, when, and where they ended: for a while their followers are told so. Those that are not
-- remembered any more count as the followers' own.
local remembered = 1000
local function remember_gone(topic, position, top)
  local owner, name = owner_of(topic), name_of(topic)
  redis.call('ZADD', gone_key(owner), digits(position), name)
  redis.call('HSET', gone_tops_key(owner), name, top)
  if redis.call('ZCARD', gone_key(owner)) > remembered then
    local oldest = redis.call('ZPOPMIN', gone_key(owner))
    redis.call('HDEL', gone_tops_key(owner), oldest[1])
    redis.call('HSET', ns .. 'gone_before', owner, digits(oldest[2]))
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
  redis.call('UNLINK', messages_key(topic), ids_key(topic), producers_key(topic), producers_heard_key(topic))
  if not found.deleted then
    local position = take_positions(1)
    -- Without messages there is nothing that a follower could have missed.
    remember_gone(topic, position, found.top ~= found.born and found.top or '0')
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
  if not found.ttl_s or found.deleted then return end
  found.due_ms = digits(now_ms() + found.ttl_s * 1000)
  redis.call('HSET', topic_key(topic), 'due_ms', found.due_ms)
  redis.call('ZADD', ns .. 'topics_due', found.due_ms, topic)
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
    -- A key that isn't ours must not stop all publishers.
    local ok, found = pcall(find_topic, topic)
    if ok and found and found.due_ms and not found.deleted then
      redis.call('ZADD', ns .. 'topics_due', found.due_ms, topic)
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

local function trim_to_history(topic, found)
  local excess = redis.call('XLEN', messages_key(topic)) - found.history
  while excess > 0 do
    trim_topic(topic, found, math.min(excess, trim_at_most))
    excess = excess - trim_at_most
  end
end

-- Whether there is room for more bytes of a client. It may have as many as are free after it, so that there is always
-- something left for another. `most`: of all topics; `own`: the client's own limit, or nil.
local function has_room(client, bytes, most, own)
  local total = tonumber(redis.call('GET', ns .. 'topic_bytes') or 0)
  local used = tonumber(redis.call('ZSCORE', ns .. 'topic_client_bytes', client) or 0)
  return used + bytes <= math.min(most - total - bytes, own or most)
end

-- `limits`: {most, own}. Makes room for a topic that keeps a limited history by forgetting its oldest messages, unless
-- even without all of them there would be none.
local function make_room(topic, found, bytes, limits)
  local freeable = found.history and found.bytes - (found.unfreeable or 0) or 0
  if not has_room(found.client, bytes - freeable, limits[1], limits[2]) then return false end
  for _ = 1, trim_at_most do
    if has_room(found.client, bytes, limits[1], limits[2]) then return true end
    if not found.history or trim_topic(topic, found, 16) == 0 then return false end
  end
  return false
end

-- What is to be appended: messages, each {entry, id or '', Unix ms when it expires or 0}. `positions`: of those whose id
-- is known. `new`: the numbers of the others; `same`: for one whose id another one of these has, that one's number.
local function plan_messages(topic, messages)
  local plan = {messages = messages, positions = {}, new = {}, same = {}, bytes = 0}
  local seen = {}
  for at, message in ipairs(messages) do
    local id = message[2]
    local known = id ~= '' and not seen[id] and redis.call('HGET', ids_key(topic), id)
    if known then
      plan.positions[at] = known
    elseif id ~= '' and seen[id] then
      plan.same[at] = seen[id]
    else
      plan.new[#plan.new + 1] = at
      if id ~= '' then seen[id] = at end
      plan.bytes = plan.bytes + #message[1] + #id + message_bytes
    end
  end
  return plan
end

-- Returns the entries, and the position of the first.
local function append_messages(topic, found, plan)
  if #plan.new == 0 then return {}, 0 end
  local key, first, entries, before = messages_key(topic), take_positions(#plan.new), {}, found.top
  for i, at in ipairs(plan.new) do
    local entry, id, expires_ms = unpack(plan.messages[at])
    local position = digits(first + i - 1)
    local arguments = {'entry', entry}
    if id ~= '' or expires_ms > 0 then arguments = {'entry', entry, 'id', id} end
    if expires_ms > 0 then arguments[5], arguments[6] = 'expires', digits(expires_ms) end
    write({'XDEL', key, position .. '-0'}, 'XADD', key, position .. '-0', unpack(arguments))
    if id ~= '' then write({'HDEL', ids_key(topic), id}, 'HSET', ids_key(topic), id, position) end
    plan.positions[at], entries[i] = position, entry
  end
  for at, other in pairs(plan.same) do plan.positions[at] = plan.positions[other] end
  found.top = digits(first + #plan.new - 1)
  write({'HSET', topic_key(topic), 'top', before}, 'HSET', topic_key(topic), 'top', found.top)
  write({'HINCRBY', topic_key(topic), 'messages', -#plan.new}, 'HINCRBY', topic_key(topic), 'messages', #plan.new)
  return entries, first
end

local function add_bytes(topic, found, bytes)
  if bytes == 0 then return end
  found.bytes = found.bytes + bytes
  write({'HINCRBY', topic_key(topic), 'bytes', -bytes}, 'HINCRBY', topic_key(topic), 'bytes', bytes)
  charge(found.client, bytes)
end

local function note_change(topic, before, position)
  write({'ZADD', topics_key(owner_of(topic)), before, name_of(topic)},
    'ZADD', topics_key(owner_of(topic)), position, name_of(topic))
end

-- Append what was planned, close the topic if `closed_by` is not nil, and tell the followers.
local function extend(topic, found, plan, closed_by)
  local before = found.top
  local entries, first = append_messages(topic, found, plan)
  add_bytes(topic, found, plan.bytes)
  if closed_by then
    found.closed = digits(take_positions(1))
    write({'HDEL', topic_key(topic), 'closed', 'closed_by'},
      'HSET', topic_key(topic), 'closed', found.closed, 'closed_by', closed_by)
  end
  if closed_by or #entries > 0 then note_change(topic, before, found.closed or found.top) end
  if found.history and #entries > 0 then trim_to_history(topic, found) end
  if #entries > 0 then announce(topic, first, entries) end
  if closed_by then announce(topic, tonumber(found.closed), {}) end
end

-- A topic that is yet to be made. `config`: a map of the fields that the caller sets.
local function new_topic(client, config)
  local found = {floor = '0', bytes = 0, client = client}
  for name, value in pairs(config) do found[name] = tostring(value) end
  return found
end

local function save_topic(topic, found)
  found.born = digits(take_positions(1))
  found.top = found.born
  local fields = {}
  for name, value in pairs(found) do
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  local keys = {
    topic_key(topic), messages_key(topic), ids_key(topic), producers_key(topic), producers_heard_key(topic),
  }
  write({'UNLINK', unpack(keys)}, 'HSET', topic_key(topic), unpack(fields))
  write({'ZREM', topics_key(owner_of(topic)), name_of(topic)}, 'ZADD', topics_key(owner_of(topic)), found.born, name_of(topic))
  charge(found.client, topic_bytes)
  local due = found.ttl_s and digits(now_ms() + found.ttl_s * 1000) or found.due_ms
  if not due then return end
  redis.call('HSET', topic_key(topic), 'due_ms', due)
  write({'ZREM', ns .. 'topics_due', topic}, 'ZADD', ns .. 'topics_due', due, topic)
end
