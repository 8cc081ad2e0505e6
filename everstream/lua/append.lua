-- Group commit: append what gathered for many generations, then publish it, in one step.
-- ARGV: ns, retention_s, then for each generation: generation, first n, final state or '', count, and count times
-- entry, resume. Returns the generations whose entries were refused: another engine has them now, or they ended.
--
-- Entry n has the explicit id n-0, and the server refuses an id that is not above the top. A refused entry that
-- stands in the log to the letter is our own, from an append whose answer was lost, so a retry is safe.
local retention_s = ARGV[2]
local refused, batches = {}, {}

local function stands(log, id, entry, resume)
  local found = redis.call('XRANGE', log, id, id)[1]
  if not found then return false end
  local fields = found[2]
  return fields[2] == entry and (fields[4] or '') == resume
end

local function append(generation, n, entry, resume)
  local log, id = log_key(generation), n .. '-0'
  if redis.call('HGET', generation_key(generation), 'state') ~= 'open' then
    return stands(log, id, entry, resume)
  end
  local reply
  if resume == '' then
    reply = redis.pcall('XADD', log, id, 'entry', entry)
  else
    reply = redis.pcall('XADD', log, id, 'entry', entry, 'resume', resume)
  end
  if type(reply) ~= 'table' or not reply.err then return true end
  if not string.find(reply.err, 'equal or smaller', 1, true) then error(reply.err) end
  return stands(log, id, entry, resume)
end

local at = 3
while at <= #ARGV do
  local generation, first, final, count = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local entries = {}
  for i = 1, count do
    local entry, resume = ARGV[at + 2 + 2 * i], ARGV[at + 3 + 2 * i]
    if not append(generation, first + i - 1, entry, resume) then break end
    entries[i] = entry
  end
  if #entries > 0 then batches[#batches + 1] = batch(generation, first, entries) end
  if #entries < count then
    refused[#refused + 1] = generation
  elseif final ~= '' then
    finish(generation, final, retention_s)
  end
  at = at + 4 + 2 * count
end
publish(batches)
return refused
