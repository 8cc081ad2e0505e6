-- Shared by every script. All keys have the same hash tag, so a cluster keeps them in one slot.
-- KEYS[1] is the queue that the script works on.
local ns = ARGV[1]
local jobs, live = KEYS[1], ns .. 'live'
local group = 'engines'
-- Valkey's approximate overhead per entry and per generation.
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

-- A log is a string of lines, one per entry: entry, tab, resume, tab, number, line feed.
local function line_of(n, entry) return entry .. '\t\t' .. n .. '\n' end

local foreign_log = 'WRONGTYPE the log of a generation holds something else'
-- More than a number takes, with its tab and line feed.
local tail_bytes = 20

-- The number at the end of these bytes; nil if they do not end with a line.
local function number_in(tail) return tonumber(string.match(tail, '\t(%d+)\n$')) end

local function last_number(tail) return number_in(tail) or error({err = foreign_log}) end

-- The number of a log's last entry.
local function top_of(log)
  local tail = redis.call('GETRANGE', log, -tail_bytes, -1)
  return tail == '' and 0 or last_number(tail)
end

local function is_foreign_log(log)
  local kind = redis.call('TYPE', log).ok
  if kind ~= 'string' then return kind ~= 'none' end
  return not number_in(redis.call('GETRANGE', log, -tail_bytes, -1))
end

-- A generation's part of the live message, which has entries exactly as the log: [generation, first n, [entry, ...]].
local function live_part(generation, lines)
  local entries, first = {}, nil
  for entry, n in string.gmatch(lines, '([^\t\n]*)\t[^\t\n]*\t(%d+)\n') do
    entries[#entries + 1], first = entry, first or n
  end
  return '["' .. generation .. '",' .. first .. ',[' .. table.concat(entries, ',') .. ']]'
end

-- Whose a generation is: its owner, or its client's address.
local function client_of(generation) return redis.call('HGET', ns .. 'clients', generation) or '' end

-- Track memory use, per generation, per client and in total.
local function account(generation, bytes)
  redis.call('HINCRBY', ns .. 'sizes', generation, bytes)
  redis.call('ZINCRBY', ns .. 'client_bytes', bytes, client_of(generation))
  redis.call('INCRBY', ns .. 'bytes', bytes)
end

-- The engine counts the bytes and the tokens of its generations, and reports them at each refresh and at the end. Not at
-- each append, because those happen for every token. What they add is gathered in `used`, by client, for `account_used`.
-- `known`: the generation's own entries_bytes and tokens. No bytes: not known yet.
local function note_used(used, generation, known, bytes, tokens)
  local more_bytes = bytes > 0 and bytes - (known[1] or 0) or 0
  local more_tokens = math.max(0, tokens - (known[2] or 0))
  if more_bytes == 0 and more_tokens == 0 then return end
  redis.call('HSET', generation_key(generation),
    'entries_bytes', (known[1] or 0) + more_bytes, 'tokens', (known[2] or 0) + more_tokens)
  redis.call('HINCRBY', ns .. 'sizes', generation, more_bytes)
  local client = client_of(generation)
  local before = used[client] or {0, 0}
  used[client] = {before[1] + more_bytes, before[2] + more_tokens}
end

-- A client's tokens are counted in each minute, while they are generated.
local function account_used(used)
  local minute = math.floor(now_ms() / 60000)
  for client, more in pairs(used) do
    redis.call('ZINCRBY', ns .. 'client_bytes', more[1], client)
    redis.call('INCRBY', ns .. 'bytes', more[1])
    if more[2] > 0 then
      local counter = ns .. 'tokens/' .. minute .. '/' .. client
      redis.call('INCRBY', counter, more[2])
      redis.call('EXPIRE', counter, 120)
    end
  end
end

local function forget(generation)
  local client = client_of(generation)
  local bytes = redis.call('HGET', ns .. 'sizes', generation) or 0
  redis.call('ZREM', ns .. 'finished', generation)
  redis.call('ZREM', ns .. 'finished/' .. client, generation)
  redis.call('DECRBY', ns .. 'bytes', bytes)
  if tonumber(redis.call('ZINCRBY', ns .. 'client_bytes', -bytes, client)) <= 0 then
    redis.call('ZREM', ns .. 'client_bytes', client)
  end
  redis.call('HDEL', ns .. 'sizes', generation)
  redis.call('HDEL', ns .. 'clients', generation)
end

-- The key of its thread, if it is the newest in it.
local function thread_of(generation)
  local key = redis.pcall('HGET', generation_key(generation), 'thread_key')
  if type(key) == 'string' and redis.pcall('GET', key) == generation then return key end
end

local function remove(generation)
  local request_key, thread_key = redis.pcall('HGET', generation_key(generation), 'request_key'), thread_of(generation)
  if type(request_key) == 'string' and request_key ~= '' then redis.call('UNLINK', request_key) end
  if thread_key then redis.call('UNLINK', thread_key) end
  redis.call('UNLINK', generation_key(generation), log_key(generation))
  forget(generation)
end

local function evict(generation, client)
  remove(generation)
  -- Even if it is not known any more whose it was.
  redis.call('ZREM', ns .. 'finished/' .. client, generation)
  count('generations_evicted', 1)
end

-- The oldest finished generation of the client that holds most, or of the next one if nothing of it has finished.
local clients_to_look_at = 16
local function to_evict()
  for _, client in ipairs(redis.call('ZREVRANGE', ns .. 'client_bytes', 0, clients_to_look_at - 1)) do
    local generation = redis.call('ZRANGE', ns .. 'finished/' .. client, 0, 0)[1]
    if generation then return generation, client end
  end
  local generation = redis.call('ZRANGE', ns .. 'finished', 0, 0)[1]
  return generation, client_of(generation)
end

-- Remove finished generations from the accounting once their keys have expired and, while the total exceeds max_bytes,
-- evict some early. Every submit and every refresh calls this. The limit per call suffices to make room for the largest
-- job, even if all finished generations are of the smallest size.
local sweep_at_most = 4096
local function sweep(retention_s, max_bytes)
  local expired_at = now_ms() - retention_s * 1000
  for _ = 1, sweep_at_most do
    local generation, finished_at = unpack(redis.call('ZRANGE', ns .. 'finished', 0, 0, 'WITHSCORES'))
    if generation and tonumber(finished_at) <= expired_at then
      forget(generation)
    elseif generation and tonumber(redis.call('GET', ns .. 'bytes') or 0) > max_bytes then
      evict(to_evict())
    else
      break
    end
  end
  return tonumber(redis.call('GET', ns .. 'bytes') or 0)
end

-- The consumer that has claimed a job, and the ms since its lease was refreshed; nil if nobody has claimed it.
local function lease_of(job_id)
  local pending = redis.call('XPENDING', jobs, group, job_id, job_id, 1)[1]
  if pending then return pending[2], pending[3] end
end

local function drop_job(job_id)
  redis.call('XACK', jobs, group, job_id)
  redis.call('XDEL', jobs, job_id)
end

-- The jobs that nobody has claimed yet wait in a list per client. `turns` has each client that has any, the next one to be
-- served in front: round robin, so that a flood of one client's jobs delays another's by one job.
local function of_queue(name) return ns .. name .. string.sub(jobs, #ns + #'jobs' + 1) end
local function waiting_key(client) return of_queue('waiting') .. '/' .. client end
local function running_key(client) return ns .. 'running/' .. client end
local function waiting_item(job_id, generation) return job_id .. ' ' .. generation end

local function enqueue(client, job_id, generation)
  if redis.call('RPUSH', waiting_key(client), waiting_item(job_id, generation)) == 1 then
    redis.call('RPUSH', of_queue('turns'), client)
  end
end

local function unqueue(client, job_id, generation)
  local removed = redis.call('LREM', waiting_key(client), 1, waiting_item(job_id, generation))
  if removed == 1 and redis.call('EXISTS', waiting_key(client)) == 0 then
    redis.call('LREM', of_queue('turns'), 1, client)
  end
end

-- Whether one of a generation's keys holds data that isn't ours.
local function is_foreign(generation)
  local hash = redis.call('TYPE', generation_key(generation)).ok
  return hash ~= 'hash' and hash ~= 'none' or is_foreign_log(log_key(generation))
end

-- Apply an action to one generation of many. If it fails because the generation's keys are foreign, call `otherwise`
-- instead: such a key must not stop all other generations. Any other error is raised again.
local function guarded(generation, otherwise, action, ...)
  local ok, result = pcall(action, ...)
  if ok then return result end
  -- Raise a table, so that the error's code stays in front.
  if not is_foreign(generation) then error({err = type(result) == 'table' and result.err or result}) end
  return otherwise()
end

-- Remove a generation whose keys are foreign, so that it is unknown to everyone.
local function discard(generation, job_id)
  redis.call('UNLINK', generation_key(generation), log_key(generation))
  redis.call('ZREM', ns .. 'read', generation)
  local client = client_of(generation)
  unqueue(client, job_id, generation)
  redis.call('SREM', running_key(client), generation)
  forget(generation)
  drop_job(job_id)
end

-- After its terminal entry a generation holds no job, and its keys expire. Its log accepts no more entries: whoever does
-- not know of this one expects the log to be shorter.
local function finish(generation, state, retention_s)
  local key = generation_key(generation)
  local known, client = redis.call('HMGET', key, 'job_id', 'request_key', 'max_running'), client_of(generation)
  redis.call('HSET', key, 'state', state)
  account(generation, -redis.call('HSTRLEN', key, 'job'))
  redis.call('HDEL', key, 'job')
  redis.call('EXPIRE', key, retention_s)
  redis.call('EXPIRE', log_key(generation), retention_s)
  if known[2] ~= '' then redis.call('EXPIRE', known[2], retention_s) end
  local thread_key = thread_of(generation)
  if thread_key then redis.call('EXPIRE', thread_key, retention_s) end
  drop_job(known[1])
  unqueue(client, known[1], generation)
  redis.call('SREM', running_key(client), generation)
  if known[3] and redis.call('EXISTS', waiting_key(client)) == 1 then
    -- The client was at its own limit, and an idle engine of this queue would look at it again only after a while.
    redis.call('XADD', of_queue('wake'), 'MAXLEN', 1, '*', 'client', client)
  end
  redis.call('ZREM', ns .. 'read', generation)
  redis.call('ZADD', ns .. 'finished', now_ms(), generation)
  redis.call('ZADD', ns .. 'finished/' .. client, now_ms(), generation)
  count('generations_' .. state, 1)
end

-- End a generation with a terminal entry, wherever its log stands.
local function close(generation, state, entry, retention_s)
  local n = top_of(log_key(generation)) + 1
  local line = line_of(n, entry)
  redis.call('APPEND', log_key(generation), line)
  account(generation, #entry + entry_bytes)
  finish(generation, state, retention_s)
  redis.call('PUBLISH', live, '[' .. live_part(generation, line) .. ']')
end

-- Whether nobody has read a generation for this time. Only the last calm_ms count, since when readers could be recorded.
local function abandoned(generation, after_ms, calm_ms)
  if calm_ms <= after_ms then return false end
  local read_at = tonumber(redis.call('ZSCORE', ns .. 'read', generation) or 0)
  return now_ms() - read_at > after_ms
end

-- Begin a job that was just claimed, unless it was stopped, abandoned or ended in the meantime. `given`: retention_s,
-- abandon_after_ms, calm_ms, the terminal entries for stopped and for abandoned ones. Returns {job id, generation, job,
-- ms since it was queued}; nil if there is nothing to do.
local function begin(job_id, generation, given)
  local retention_s, abandon_after_ms, calm_ms, stopped_entry, abandoned_entry = unpack(given)
  local known = redis.call('HMGET', generation_key(generation), 'state', 'job', 'stop', 'abandon_after_ms')
  if known[1] ~= 'open' then
    drop_job(job_id)
    return
  end
  if known[3] then return close(generation, 'cancelled', stopped_entry, retention_s) end
  if abandoned(generation, tonumber(known[4] or abandon_after_ms), tonumber(calm_ms)) then
    return close(generation, 'cancelled', abandoned_entry, retention_s)
  end
  redis.call('SADD', running_key(client_of(generation)), generation)
  -- Valkey makes a job's id from its clock, in ms.
  return {job_id, generation, known[2], now_ms() - string.match(job_id, '^%d+')}
end

local function begin_guarded(job_id, generation, given)
  return guarded(generation, function() discard(generation, job_id) end, begin, job_id, generation, given)
end
