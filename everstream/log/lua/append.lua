-- Group commit: append the gathered entries of many generations, then publish them, in one step.
-- ARGV: ns, retention_s, the live message, MessagePack of an array with, for each generation that ends: generation, final
-- state, bytes of all its entries, its tokens; then for each generation: the key of its log, the log's length with these
-- entries, and the entries as `lines`
-- Returns the keys of the logs that refused, because another engine has the generation now or it has ended. If any did,
-- nothing was published, because the message has their entries too.
--
-- The length names the place. If the log has another, this append is taken back, and refused unless the log holds exactly
-- these lines in their place: then they are our own, from an append whose reply was lost, so a retry is safe. A log that
-- has lost entries is too short, and refuses too: the next engine to take the generation over continues from what is left.
local retention_s, message, ends = ARGV[2], ARGV[3], ARGV[4]
local generation_at = #log_key('') + 1

local function is_open(generation) return redis.call('HGET', generation_key(generation), 'state') == 'open' end

local function take_back(log, length)
  if length == 0 then
    redis.call('UNLINK', log)
  else
    redis.call('SET', log, redis.call('GETRANGE', log, 0, length - 1), 'KEEPTTL')
  end
end

local function is_present(log, length, lines)
  if redis.call('GETRANGE', log, length - #lines, length - 1) == lines then return true end
  if is_foreign_log(log) then error({err = 'WRONGTYPE the log of a generation holds something else'}) end
  return false
end

local function is_accepted(log, length, lines)
  if length == #lines and not is_open(string.sub(log, generation_at)) then return is_present(log, length, lines) end
  local found = redis.call('APPEND', log, lines)
  if found == length then return true end
  take_back(log, found - #lines)
  return is_present(log, length, lines)
end

local refused, is_refused = {}, {}
for at = 5, #ARGV, 3 do
  local log, lines = ARGV[at], ARGV[at + 2]
  if not is_accepted(log, tonumber(ARGV[at + 1]), lines) then
    refused[#refused + 1], is_refused[string.sub(log, generation_at)] = log, true
    count('entries_refused', select(2, string.gsub(lines, '\n', '')))
  end
end
if #refused == 0 then redis.call('PUBLISH', live, message) end
if ends ~= '' then
  local used = {}
  for _, given in ipairs(cmsgpack.unpack(ends)) do
    local generation, final, bytes, tokens = unpack(given)
    if not is_refused[generation] and is_open(generation) then
      local known = redis.call('HMGET', generation_key(generation), 'entries_bytes', 'tokens')
      note_used(used, generation, known, bytes, tokens)
      finish(generation, final, retention_s)
    end
  end
  account_used(used)
end
return refused
