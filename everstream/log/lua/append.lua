-- Group commit: append the gathered entries of many generations, then publish them, in one step.
-- ARGV: ns, retention_s, MessagePack of an array with, for each generation: generation, first n, final state or '',
-- bytes of all its entries, its tokens, and an array of entry, resume, entry, resume, ...
-- Returns the generations whose entries were refused, because another engine has them now or they have ended.
--
-- Entry n has the explicit id n-0 and must be the next one. An entry whose number is taken is refused, unless the log
-- holds exactly the same entry: then it is our own, from an append whose reply was lost, so a retry is safe. One that
-- would leave a gap, or whose generation is unknown, is refused too: the log has lost entries, and the next engine to
-- take the generation over continues from what is left.
local retention_s = ARGV[2]
local refused, batches = {}, {}

local function is_present(log, n, entry, resume)
  local found = redis.call('XRANGE', log, n .. '-0', n .. '-0')[1]
  return found and found[2][2] == entry and (found[2][4] or '') == resume
end

-- Returns false if the log has ended.
local function append(log, n, entry, resume)
  local reply
  if resume == '' then
    reply = redis.pcall('XADD', log, n .. '-0', 'entry', entry)
  else
    reply = redis.pcall('XADD', log, n .. '-0', 'entry', entry, 'resume', resume)
  end
  if type(reply) ~= 'table' then return true end
  -- Any other error (out of memory, a full disk) doesn't mean that another engine has the generation.
  if not string.find(reply.err, 'equal or smaller', 1, true) then error(reply) end
  return false
end

local function is_open(generation) return redis.call('HGET', generation_key(generation), 'state') == 'open' end

for _, given in ipairs(cmsgpack.unpack(ARGV[3])) do
  local generation, first, final, bytes, tokens, parts = unpack(given)
  local size = #parts / 2
  local log = log_key(generation)
  local top, entries = redis.call('XLEN', log), {}
  for i = 1, size do
    local n, entry, resume = first + i - 1, parts[2 * i - 1], parts[2 * i]
    if n <= top then
      if not is_present(log, n, entry, resume) then break end
    elseif n == top + 1 and (n > 1 or is_open(generation)) and append(log, n, entry, resume) then
      top = n
    else
      break
    end
    entries[i] = entry
  end
  if #entries > 0 then batches[#batches + 1] = batch(generation, first, entries) end
  if #entries < size then
    refused[#refused + 1] = generation
    count('entries_refused', size - #entries)
  elseif final ~= '' and is_open(generation) then
    account_entries(generation, bytes)
    account_tokens(generation, tokens)
    finish(generation, final, retention_s)
  end
end
publish(batches)
return refused
