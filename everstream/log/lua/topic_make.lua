-- Make a topic, or find one that was made the same way. ARGV: ns, and in MessagePack {topic, client, {most, own},
-- config, messages, whether to close it, source or false, the position up to which it is copied or false, a first
-- message of its own or false}.
-- Returns {'made' | 'known', top, closed or '', content type}, or why not.
local topic, client, limits, config, messages, closes, source, anchor, partial = unpack(cmsgpack.unpack(ARGV[2]))
local most_copied = 100000
local compared = {'type', 'history', 'latest', 'ttl_s', 'expires_at', 'fork'}

local function is_same(found)
  for _, name in ipairs(compared) do
    if (found[name] or '') ~= tostring(config[name] or '') then return false end
  end
  return (found.closed and true or false) == closes
end

-- One that was made by its first message takes what is asked for now.
local function adopt(found)
  if not found.implicit or found.type ~= config.type or closes then return false end
  redis.call('HDEL', topic_key(topic), 'implicit', 'history', 'latest', 'ttl_s', 'due_ms', 'expires_at')
  redis.call('ZREM', ns .. 'topics_due', topic)
  found.ttl_s = false
  for name, value in pairs(config) do
    redis.call('HSET', topic_key(topic), name, tostring(value))
    found[name] = value
  end
  if found.due_ms then redis.call('ZADD', ns .. 'topics_due', found.due_ms, topic) end
  keep_alive(topic, found)
  return true
end

-- The messages of `source` up to the anchor are copied, with their positions.
local function copy(found)
  redis.call('COPY', messages_key(source), messages_key(topic), 'REPLACE')
  local later = redis.call('XRANGE', messages_key(topic), '(' .. anchor .. '-0', '+')
  for _, message in ipairs(later) do redis.call('XDEL', messages_key(topic), message[1]) end
  local bytes = 0
  for _, message in ipairs(redis.call('XRANGE', messages_key(topic), '-', '+')) do
    bytes, found.top = bytes + size_of(message), string.match(message[1], '^%d+')
  end
  found.bytes = bytes
  redis.call('HSET', topic_key(topic), 'top', found.top, 'bytes', digits(bytes), 'fork_of', source,
    'messages', redis.call('XLEN', messages_key(topic)))
  account_topic(client, bytes)
  redis.call('HINCRBY', topic_key(source), 'forks', 1)
end

sweep_topics()
local origin = source and find_topic(source)
if source and not origin then return {'unknown_source'} end
if source and not config.type then config.type = origin.type end
if source and not config.ttl_s and not config.due_ms then
  config.ttl_s = origin.ttl_s or nil
  if origin.expires_at then config.expires_at, config.due_ms = origin.expires_at, origin.due_ms end
end
local found = find_topic(topic)
if found and found.deleted then return {'conflict'} end
if found then
  if is_same(found) or adopt(found) then return {'known', found.top, found.closed or '', found.type} end
  return {'conflict'}
end
if source then
  if origin.deleted then return {'gone_source'} end
  if origin.type ~= config.type then return {'type_conflict', origin.type} end
  if redis.call('XLEN', messages_key(source)) > most_copied then return {'too_many_to_copy'} end
  if tonumber(anchor) > math.max(tonumber(origin.top), tonumber(origin.born)) then return {'beyond_source'} end
end
local copied = source and tonumber(origin.bytes) or 0
if not has_room(client, topic_bytes + copied, limits[1], limits[2]) then return {'full'} end
found = make_topic(topic, client, config)
if source then copy(found) end
if partial then table.insert(messages, 1, partial) end
if not append_messages(topic, found, messages, limits) then
  purge(topic, found)
  return {'full'}
end
if closes then close_topic(topic, found, '') end
return {'made', found.top, found.closed or '', found.type}
