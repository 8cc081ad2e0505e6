-- Append messages to a topic, close it, or both. ARGV: ns, and in MessagePack {topic, client, content type or false,
-- {most, own}, config to make the topic with if there is none or false, messages, whether to close it, producer or
-- false, sequence or false}. A producer is {id, epoch, seq}, as Durable Streams has it (PROTOCOL.md, section 5.2.1).
-- Returns {'ok', top, closed or '', made, positions}, {'duplicate', top, closed or '', highest seq}, or why not.
local topic, client, kind, limits, config, messages, closes, producer, sequence = unpack(cmsgpack.unpack(ARGV[2]))

-- What a producer's request is, by its epoch and sequence number; nil: the next one.
local function refused_producer(found)
  local known = redis.call('HGET', producers_key(topic), producer[1])
  local epoch, last = string.match(known or '', '(%d+) (%d+)')
  epoch, last = tonumber(epoch), tonumber(last)
  if epoch and producer[2] < epoch then return {'fenced', epoch} end
  if found.closed then
    if found.closed_by == table.concat(producer, ' ') then return {'duplicate', found.top, found.closed, producer[3]} end
    return {'closed', found.top}
  end
  if not epoch or producer[2] > epoch then
    if producer[3] == 0 then return nil end
    return epoch and {'epoch_begins_at_0'} or {'gap', 0}
  end
  if producer[3] <= last then return {'duplicate', found.top, '', last} end
  if producer[3] > last + 1 then return {'gap', last + 1} end
end

sweep_topics()
local found, made = find_topic(topic), '0'
if not found then
  if not config then return {'unknown'} end
  if not has_room(client, topic_bytes, limits[1], limits[2]) then return {'full'} end
  found, made = make_topic(topic, client, config), '1'
end
if found.deleted then return {'gone'} end
if producer then
  local refused = refused_producer(found)
  if refused then return refused end
elseif found.closed then
  if closes and #messages == 0 then return {'ok', found.top, found.closed, made, {}} end
  return {'closed', found.top}
end
if #messages > 0 and kind and kind ~= found.type then return {'type_conflict', found.type} end
if sequence and found.seq and sequence <= found.seq then return {'sequence_conflict', found.seq} end

local positions = append_messages(topic, found, messages, limits)
if not positions then return {'full'} end
if producer then redis.call('HSET', producers_key(topic), producer[1], producer[2] .. ' ' .. producer[3]) end
if sequence then redis.call('HSET', topic_key(topic), 'seq', sequence) end
if closes then close_topic(topic, found, producer and table.concat(producer, ' ') or '') end
keep_alive(topic, found)
return {'ok', found.top, found.closed or '', made, positions}
