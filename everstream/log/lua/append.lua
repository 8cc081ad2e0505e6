-- Group commit: append the gathered entries of many generations, then publish them, in one step.
-- ARGV: ns, retention_s, the live message, MessagePack of an array with, for each generation that ends: generation, final
-- state, bytes of all its entries, its tokens; then for each generation: the key of its log, the log's length with these
-- entries, and the entries as `lines`
-- Returns the keys of the logs that refused, because another engine has the generation now or it has ended.
--
-- The length names the place. A log of another length refuses, unless it holds exactly these lines in their place: then
-- they are our own, from an append whose reply was lost, so a retry is safe. A log that has lost entries is too short, and
-- refuses too: the next engine to take the generation over continues from what is left.
local retention_s, message, ends = ARGV[2], ARGV[3], ARGV[4]
local generation_at = #log_key('') + 1

local function state_of(generation) return redis.call('HGET', generation_key(generation), 'state') end

local function is_present(log, length, lines)
  if redis.call('GETRANGE', log, length - #lines, length - 1) == lines then return true end
  if is_foreign_log(log) then error({err = foreign_log}) end
  return false
end

local function is_accepted(log, length, lines)
  local before = length - #lines
  if redis.call('STRLEN', log) ~= before or before == 0 and state_of(string.sub(log, generation_at)) ~= 'open' then
    return is_present(log, length, lines)
  end
  redis.call('APPEND', log, lines)
  return true
end

-- Both by the logs' keys.
local refused, accepted = {}, {}
for at = 5, #ARGV, 3 do
  local log, lines = ARGV[at], ARGV[at + 2]
  if is_accepted(log, tonumber(ARGV[at + 1]), lines) then
    accepted[log] = lines
  else
    refused[#refused + 1] = log
    count('entries_refused', select(2, string.gsub(lines, '\n', '')))
  end
end

local function finish_all()
  local used, ended = {}, {}
  for _, given in ipairs(cmsgpack.unpack(ends)) do
    local generation, final, bytes, tokens = unpack(given)
    local is_in = accepted[log_key(generation)]
    local state = is_in and state_of(generation)
    if state == 'open' then
      local known = redis.call('HMGET', generation_key(generation), 'entries_bytes', 'tokens')
      note_used(used, generation, known, bytes, tokens)
      ended[#ended + 1] = {generation, final}
    elseif is_in and not state then
      -- Its hash was evicted, and its log would stay for ever.
      redis.call('UNLINK', log_key(generation))
    end
  end
  account_used(used)
  for _, each in ipairs(ended) do finish(each[1], each[2], retention_s) end
end

if ends ~= '' then finish_all() end
if #refused > 0 then
  local parts = {}
  for log, lines in pairs(accepted) do parts[#parts + 1] = live_part(string.sub(log, generation_at), lines) end
  message = '[' .. table.concat(parts, ',') .. ']'
end
if next(accepted) then redis.call('PUBLISH', live, message) end
return refused
