-- Start a generation, or attach to the one that the same request id started.
-- ARGV: ns, generation, inputs, model, request key or '', max_queued
-- Returns {generation, 'started' | 'attached' | 'full'}.
local generation, inputs, model, request_key = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if request_key ~= '' then
  local earlier = redis.call('GET', request_key)
  if earlier then return {earlier, 'attached'} end
end
ensure_group()
local queued = redis.call('XLEN', jobs) - redis.call('XPENDING', jobs, group)[1]
if queued >= tonumber(ARGV[6]) then return {'', 'full'} end
local job_id = redis.call('XADD', jobs, '*', 'generation', generation, 'inputs', inputs)
redis.call('HSET', generation_key(generation), 'state', 'open', 'model', model, 'job_id', job_id,
  'request_key', request_key)
if request_key ~= '' then redis.call('SET', request_key, generation) end
return {generation, 'started'}
