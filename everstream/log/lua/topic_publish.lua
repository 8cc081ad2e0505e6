-- Append messages to a topic, close it, or both. ARGV: ns, and in MessagePack {topic, client, content type or false,
-- {most, own}, config to make the topic with if there is none or false, messages, whether to close it, producer or
-- false, sequence or false}. A producer is {id, epoch, seq}, as Durable Streams has it (PROTOCOL.md, section 5.2.1).
-- Returns {'ok', top, closed or '', made, positions}, {'duplicate', top, closed or '', highest seq}, or why not.
local topic, client, kind, limits, config, messages, closes, producer, sequence = unpack(cmsgpack.unpack(ARGV[2]))
local found

local function name_of_request() return producer[1] .. ' ' .. digits(producer[2]) .. ' ' .. digits(producer[3]) end

-- What a producer's request is, by its epoch and sequence number, and what is known of it; nil: the next one.
local function refused_producer(found, known)
  local epoch, last = string.match(known or '', '^(%d+) (%d+)$')
  epoch, last = tonumber(epoch), tonumber(last)
  if epoch and producer[2] < epoch then return {'fenced', epoch} end
  if found.closed then
    if found.closed_by == name_of_request() then return {'duplicate', found.top, found.closed, producer[3]} end
    return {'closed', found.top}
  end
  if not epoch or producer[2] > epoch then
    if producer[3] == 0 then return nil end
    return epoch and {'epoch_begins_at_0'} or {'gap', 0}
  end
  if producer[3] <= last then return {'duplicate', found.top, '', last} end
  if producer[3] > last + 1 then return {'gap', last + 1} end
end

-- Called last: nothing can fail any more.
local function note_producer()
  local heard = producers_heard_key(topic)
  redis.call('ZADD', heard, digits(last_position()), producer[1])
  if redis.call('ZCARD', heard) <= most_producers then return end
  local oldest = redis.call('ZPOPMIN', heard)[1]
  local bytes = #oldest + producer_bytes
  redis.call('HDEL', producers_key(topic), oldest)
  redis.call('HINCRBY', topic_key(topic), 'unfreeable', -bytes)
  redis.call('HINCRBY', topic_key(topic), 'bytes', -bytes)
  account_topic(found.client, -bytes)
end

-- By their bytes. Lua's own order is that of the server's locale.
local function is_after(one, other)
  for at = 1, math.min(#one, #other) do
    local a, b = string.byte(one, at), string.byte(other, at)
    if a ~= b then return a > b end
  end
  return #one > #other
end

sweep_topics()
found = find_topic(topic)
local made = not found
if made then
  if not config then return {'unknown'} end
  found = new_topic(client, config)
end
if found.deleted then return {'gone'} end
local known = producer and redis.call('HGET', producers_key(topic), producer[1])
if producer then
  local refused = refused_producer(found, known)
  if refused then return refused end
elseif found.closed then
  if closes and #messages == 0 then return {'ok', found.top, found.closed, '0', {}} end
  return {'closed', found.top}
end
if #messages > 0 and kind and kind ~= found.type then return {'type_conflict', found.type} end
if sequence and found.seq and not is_after(sequence, found.seq) then return {'sequence_conflict', found.seq} end

local plan = plan_messages(topic, messages)
local new_producer_bytes = producer and not known and #producer[1] + producer_bytes or 0
plan.bytes = plan.bytes + new_producer_bytes
if not make_room(topic, found, plan.bytes + (made and topic_bytes or 0), limits) then return {'full'} end

all_or_nothing(function()
  if made then save_topic(topic, found) end
  if producer then
    local key, id = producers_key(topic), producer[1]
    write(known and {'HSET', key, id, known} or {'HDEL', key, id},
      'HSET', key, id, digits(producer[2]) .. ' ' .. digits(producer[3]))
  end
  if new_producer_bytes > 0 then
    local key, before = topic_key(topic), found.unfreeable
    write(before and {'HSET', key, 'unfreeable', before} or {'HDEL', key, 'unfreeable'},
      'HINCRBY', key, 'unfreeable', new_producer_bytes)
  end
  if sequence then
    local key = topic_key(topic)
    write(found.seq and {'HSET', key, 'seq', found.seq} or {'HDEL', key, 'seq'}, 'HSET', key, 'seq', sequence)
  end
  extend(topic, found, plan, closes and (producer and name_of_request() or '') or nil)
end)
if producer then note_producer() end
keep_alive(topic, found)
return {'ok', found.top, found.closed or '', made and '1' or '0', plan.positions}
