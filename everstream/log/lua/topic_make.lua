-- Make a topic, or find one that was made the same way. ARGV: ns, and in MessagePack {topic, client, {most, own},
-- config, messages, whether to close it, source or false, the position up to which it is copied or false, a first
-- message of its own or false}.
-- Returns {'made' | 'known', top, closed or '', content type}, or why not.
local topic, client, limits, config, messages, closes, source, anchor, partial = unpack(cmsgpack.unpack(ARGV[2]))
local most_copied, most_copied_bytes = 10000, 16 * 1024 * 1024
local compared = {'type', 'history', 'latest', 'ttl_s', 'expires_at', 'fork'}

local function is_same(found)
  for _, name in ipairs(compared) do
    if (found[name] or '') ~= tostring(config[name] or '') then return false end
  end
  return (found.closed and true or false) == closes
end

-- From now on it counts as made by request.
local function confirm() redis.call('HDEL', topic_key(topic), 'implicit') end

-- One that was made by its first message takes what is asked for now.
local function adopt(found)
  if not found.implicit or found.type ~= config.type or closes or source then return false end
  confirm()
  redis.call('HDEL', topic_key(topic), 'history', 'latest', 'ttl_s', 'due_ms', 'expires_at')
  redis.call('ZREM', ns .. 'topics_due', topic)
  found.history, found.ttl_s, found.due_ms = false, false, false
  for name, value in pairs(config) do
    redis.call('HSET', topic_key(topic), name, tostring(value))
    found[name] = value
  end
  if found.history then trim_to_history(topic, found) end
  if found.due_ms then redis.call('ZADD', ns .. 'topics_due', found.due_ms, topic) end
  keep_alive(topic, found)
  return true
end

-- The messages of `source` up to the anchor: how many bytes they take, and the position of the last of them.
local function measure()
  local bytes, last, from = 0, nil, '-'
  repeat
    local page = redis.call('XRANGE', messages_key(source), from, anchor .. '-0', 'COUNT', at_once)
    for _, message in ipairs(page) do
      bytes, last = bytes + size_of(message), string.match(message[1], '^%d+')
      from = '(' .. message[1]
    end
  until #page < at_once
  return bytes, last
end

-- Those are copied, with their positions.
local function copy(origin, found, bytes, last)
  local key = messages_key(topic)
  write({'UNLINK', key}, 'COPY', messages_key(source), key, 'REPLACE')
  repeat
    local later, ids = redis.call('XRANGE', key, '(' .. anchor .. '-0', '+', 'COUNT', at_once), {}
    for at, message in ipairs(later) do ids[at] = message[1] end
    if #ids > 0 then redis.call('XDEL', key, unpack(ids)) end
  until #later < at_once
  found.top = last or found.top
  -- What the source had forgotten up to the anchor, the fork never had.
  found.floor = digits(math.min(tonumber(origin.floor), tonumber(anchor)))
  redis.call('HSET', topic_key(topic), 'top', found.top, 'floor', found.floor, 'fork_of', source,
    'messages', redis.call('XLEN', key))
  add_bytes(topic, found, bytes)
  write({'HINCRBY', topic_key(source), 'forks', -1}, 'HINCRBY', topic_key(source), 'forks', 1)
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
  -- Messages of a request that was repeated are there. Those for a topic that others have begun are not.
  if found.implicit and #messages > 0 then return {'conflict'} end
  if is_same(found) then
    confirm()
  elseif not adopt(found) then
    return {'conflict'}
  end
  return {'known', found.top, found.closed or '', found.type}
end
if source then
  if origin.deleted then return {'gone_source'} end
  if origin.type ~= config.type then return {'type_conflict', origin.type} end
  if redis.call('XLEN', messages_key(source)) > most_copied or tonumber(origin.bytes) > most_copied_bytes then
    return {'too_many_to_copy'}
  end
  if tonumber(anchor) > math.max(tonumber(origin.top), tonumber(origin.born)) then return {'beyond_source'} end
end
local copied, last = 0, nil
if source then copied, last = measure() end
if partial then table.insert(messages, 1, partial) end
local plan = plan_messages(topic, messages)
if not has_room(client, topic_bytes + copied + plan.bytes, limits[1], limits[2]) then return {'full'} end
found = new_topic(client, config)
all_or_nothing(function()
  save_topic(topic, found)
  if source then copy(origin, found, copied, last) end
  extend(topic, found, plan, closes and '' or nil)
end)
return {'made', found.top, found.closed or '', found.type}
