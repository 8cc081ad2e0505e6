-- Start a generation, or attach to the one that the same request id started.
-- ARGV: ns, generation, job, model, digest of the request, request key or '', max_queued, retention_s, max_log_bytes,
-- queue, ms without a reader after which it is abandoned or '' (then the engine's setting counts), record or '', owner
-- or '', client, the client's own limits or '': generations that run, that wait, and bytes of its log; and the key of
-- its thread or ''
-- Returns {'started' | 'attached', generation, state, model, job id, digest, queue, owner, top}, or
-- {'queue_full' | 'log_full' | 'too_many_waiting' | 'too_many_bytes'}.
local generation, job, model, digest, request_key = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local max_queued, retention_s, max_log_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local queue, abandon_after_ms, record, owner = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local client, max_running, max_waiting, max_client_bytes = ARGV[14], ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17])
local thread_key = ARGV[18]

local function describe(outcome, id)
  local known = redis.call('HMGET', generation_key(id), 'state', 'model', 'job_id', 'digest', 'queue', 'owner')
  local top = outcome == 'started' and 0 or top_of(log_key(id))
  return {outcome, id, known[1], known[2], known[3], known[4] or '', known[5] or '', known[6] or '', top}
end

local earlier = request_key ~= '' and redis.call('GET', request_key)
if earlier and not is_foreign(earlier) and redis.call('EXISTS', generation_key(earlier)) == 1 then
  return describe('attached', earlier)
end
ensure_group()
local waiting = redis.call('LLEN', waiting_key(client))
if max_waiting and waiting >= max_waiting then return {'too_many_waiting'} end
local queued = redis.call('XLEN', jobs) - redis.call('XPENDING', jobs, group)[1]
if queued >= max_queued then
  -- A client that waits with less than its share of the queue is still let in: those that fill it must not shut it out.
  local clients = redis.call('LLEN', of_queue('turns')) + (waiting == 0 and 1 or 0)
  if queued >= 2 * max_queued or waiting >= math.floor(max_queued / clients) then return {'queue_full'} end
end
local bytes = #job + #record + generation_bytes
if sweep(retention_s, max_log_bytes - bytes) + bytes > max_log_bytes then return {'log_full'} end

-- The client's oldest finished generations that have to go, so that it stays within its own limit; nil: even all of them
-- would not do.
local function to_make_room()
  local found, excess = {}, tonumber(redis.call('ZSCORE', ns .. 'client_bytes', client) or 0) + bytes - max_client_bytes
  for _, generation in ipairs(redis.call('ZRANGE', ns .. 'finished/' .. client, 0, sweep_at_most - 1)) do
    if excess <= 0 then break end
    found[#found + 1] = generation
    excess = excess - (redis.call('HGET', ns .. 'sizes', generation) or 0)
  end
  if excess <= 0 then return found end
end

if max_client_bytes then
  local evicted = to_make_room()
  if not evicted then return {'too_many_bytes'} end
  for _, generation in ipairs(evicted) do evict(generation, client) end
end
local job_id

local function start()
  job_id = redis.call('XADD', jobs, '*', 'generation', generation)
  redis.call('HSET', ns .. 'clients', generation, client)
  enqueue(client, job_id, generation)
  redis.call('HSET', generation_key(generation), 'state', 'open', 'model', model, 'job_id', job_id,
    'digest', digest, 'request_key', request_key, 'queue', queue, 'job', job)
  if abandon_after_ms ~= '' then redis.call('HSET', generation_key(generation), 'abandon_after_ms', abandon_after_ms) end
  if max_running ~= '' then redis.call('HSET', generation_key(generation), 'max_running', max_running) end
  if owner ~= '' then redis.call('HSET', generation_key(generation), 'owner', owner) end
  if record ~= '' then redis.call('HSET', generation_key(generation), 'record', record) end
  redis.call('ZADD', ns .. 'read', now_ms(), generation)
  account(generation, bytes)
  if request_key ~= '' then redis.call('SET', request_key, generation) end
  if thread_key ~= '' then
    redis.call('HSET', generation_key(generation), 'thread_key', thread_key)
    redis.call('SET', thread_key, generation)
  end
  count('generations_started', 1)
  return describe('started', generation)
end

-- A script that fails half-way keeps its writes, so undo them all. Otherwise a generation would run although its client
-- was told that it does not, and a retry would start another one.
local ok, result = pcall(start)
if ok then return result end
if job_id then
  redis.pcall('XDEL', jobs, job_id)
  pcall(unqueue, client, job_id, generation)
end
redis.pcall('UNLINK', generation_key(generation))
if request_key ~= '' then redis.pcall('UNLINK', request_key) end
if thread_key ~= '' then redis.pcall('UNLINK', thread_key) end
redis.pcall('ZREM', ns .. 'read', generation)
pcall(forget, generation)
error({err = type(result) == 'table' and result.err or result})
