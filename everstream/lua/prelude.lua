-- Shared by every script. All keys carry one hash tag, so they live in one slot of a cluster.
local ns = ARGV[1]
local jobs, live = ns .. 'jobs', ns .. 'live'
local group = 'engines'
-- Roughly what Valkey itself needs for an entry and for a generation, beside their bytes.
local entry_bytes, generation_bytes = 32, 1024

local function generation_key(generation) return ns .. 'gen:' .. generation end
local function log_key(generation) return ns .. 'log:' .. generation end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function count(name, by) redis.call('HINCRBY', ns .. 'counters', name, by) end

local function ensure_group()
  redis.pcall('XGROUP', 'CREATE', jobs, group, '0', 'MKSTREAM')
end

-- An entry travels live just as it stands in the log: [generation, first n, [entry, ...]].
local function batch(generation, first, entries)
  return '["' .. generation .. '",' .. first .. ',[' .. table.concat(entries, ',') .. ']]'
end

local function publish(batches)
  if #batches > 0 then redis.call('PUBLISH', live, '[' .. table.concat(batches, ',') .. ']') end
end

-- What the generations take in memory: of each, and of all.
local function account(generation, bytes)
  redis.call('HINCRBY', ns .. 'sizes', generation, bytes)
  redis.call('INCRBY', ns .. 'bytes', bytes)
end

-- The engine counts what its generations' entries take, and says so at each refresh and at the end: not at each append,
-- which is done for every token. 0: it does not know yet.
local function account_entries(generation, bytes)
  bytes = tonumber(bytes)
  if bytes == 0 then return end
  local key = generation_key(generation)
  local more = bytes - (redis.call('HGET', key, 'entries_bytes') or 0)
  if more == 0 then return end
  redis.call('HSET', key, 'entries_bytes', bytes)
  account(generation, more)
end

local function forget(generation)
  redis.call('ZREM', ns .. 'finished', generation)
  redis.call('DECRBY', ns .. 'bytes', redis.call('HGET', ns .. 'sizes', generation) or 0)
  redis.call('HDEL', ns .. 'sizes', generation)
end

local function evict(generation)
  local request_key = redis.pcall('HGET', generation_key(generation), 'request_key')
  if type(request_key) == 'string' and request_key ~= '' then redis.call('UNLINK', request_key) end
  redis.call('UNLINK', generation_key(generation), log_key(generation))
  forget(generation)
  count('generations_evicted', 1)
end

-- Take finished generations off the account once their keys have expired, and, while all take more than max_bytes,
-- evict the oldest finished ones before that. Every submit and every refresh calls. The bound on one call is above what
-- makes room for the largest job, should all that is finished be of the smallest.
local sweep_at_most = 4096
local function sweep(retention_s, max_bytes)
  local expired_at = now_ms() - retention_s * 1000
  for _ = 1, sweep_at_most do
    local generation, finished_at = unpack(redis.call('ZRANGE', ns .. 'finished', 0, 0, 'WITHSCORES'))
    if generation and tonumber(finished_at) <= expired_at then
      forget(generation)
    elseif generation and tonumber(redis.call('GET', ns .. 'bytes') or 0) > max_bytes then
      evict(generation)
    else
      break
    end
  end
  return tonumber(redis.call('GET', ns .. 'bytes') or 0)
end

-- Who has claimed a job and how long ago its lease was refreshed, in ms; nil: nobody has.
local function lease_of(job_id)
  local pending = redis.call('XPENDING', jobs, group, job_id, job_id, 1)[1]
  if pending then return pending[2], pending[3] end
end

local function drop_job(job_id)
  redis.call('XACK', jobs, group, job_id)
  redis.call('XDEL', jobs, job_id)
end

-- Whether one of a generation's keys holds what is none of ours.
local function is_foreign(generation)
  local about, log = redis.call('TYPE', generation_key(generation)).ok, redis.call('TYPE', log_key(generation)).ok
  return about ~= 'hash' and about ~= 'none' or log ~= 'stream' and log ~= 'none'
end

-- Do something with one generation of many. If it fails because its keys are foreign, `otherwise` is done and returned:
-- such a key must not stop all other generations. Any other error is raised again.
local function guarded(generation, otherwise, action, ...)
  local ok, result = pcall(action, ...)
  if ok then return result end
  -- As a table, so that its code stays in front.
  if not is_foreign(generation) then error({err = type(result) == 'table' and result.err or result}) end
  return otherwise()
end

-- Remove a generation whose keys hold what is none of ours: to all who ask it is unknown.
local function discard(generation, job_id)
  redis.call('UNLINK', generation_key(generation), log_key(generation))
  redis.call('ZREM', ns .. 'read', generation)
  forget(generation)
  drop_job(job_id)
end

-- After its terminal entry a generation holds no job, and its keys expire. Its log takes no entry more, as no id is above
-- its top: so an append need not look at the state first.
local top_id = '9007199254740991-0'
local function finish(generation, state, retention_s)
  local key = generation_key(generation)
  local known = redis.call('HMGET', key, 'job_id', 'request_key')
  redis.call('HSET', key, 'state', state)
  account(generation, -redis.call('HSTRLEN', key, 'job'))
  redis.call('HDEL', key, 'job')
  redis.call('EXPIRE', key, retention_s)
  redis.call('XSETID', log_key(generation), top_id)
  redis.call('EXPIRE', log_key(generation), retention_s)
  if known[2] ~= '' then redis.call('EXPIRE', known[2], retention_s) end
  drop_job(known[1])
  redis.call('ZREM', ns .. 'read', generation)
  redis.call('ZADD', ns .. 'finished', now_ms(), generation)
  count('generations_' .. state, 1)
end

-- End a generation with a terminal entry, wherever its log stands.
local function close(generation, state, entry, retention_s)
  local n = redis.call('XLEN', log_key(generation)) + 1
  redis.call('XADD', log_key(generation), n .. '-0', 'entry', entry)
  account(generation, #entry + entry_bytes)
  finish(generation, state, retention_s)
  publish({batch(generation, n, {entry})})
end

-- Whether nobody has read a generation for so long; 0: don't ask.
local function abandoned(generation, after_ms)
  if after_ms == 0 then return false end
  local read_at = tonumber(redis.call('ZSCORE', ns .. 'read', generation) or 0)
  return now_ms() - read_at > after_ms
end
