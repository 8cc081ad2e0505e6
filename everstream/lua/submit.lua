-- Start a generation, or attach to the one that the same request id started.
-- ARGV: ns, generation, job, model, request key or '', max_queued, retention_s, max_log_bytes
-- Returns {'started' | 'attached', generation, model, job id} or {'queue_full' | 'log_full'}.
local generation, job, model, request_key = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local max_queued, retention_s, max_log_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
if request_key ~= '' then
  local earlier = redis.call('GET', request_key)
  if earlier then return {'attached', earlier, unpack(redis.call('HMGET', generation_key(earlier), 'model', 'job_id'))} end
end
ensure_group()
if redis.call('XLEN', jobs) - redis.call('XPENDING', jobs, group)[1] >= max_queued then return {'queue_full'} end
local bytes = #job + generation_bytes
if sweep(retention_s, max_log_bytes - bytes) + bytes > max_log_bytes then return {'log_full'} end
local job_id = redis.call('XADD', jobs, '*', 'generation', generation)
redis.call('HSET', generation_key(generation), 'state', 'open', 'model', model, 'job_id', job_id,
  'request_key', request_key, 'job', job)
redis.call('ZADD', ns .. 'read', now_ms(), generation)
account(generation, bytes)
if request_key ~= '' then redis.call('SET', request_key, generation) end
count('generations_started', 1)
return {'started', generation, model, job_id}
