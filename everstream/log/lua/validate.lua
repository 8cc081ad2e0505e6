-- Ask the engines to validate inputs, unless too many requests wait already. Requests that no engine takes in time
-- expire.
-- ARGV: ns, the set of waiting requests to add to, id, request, how long its sender waits in ms, maximum number of
-- waiting requests. Returns 1, or 0 if too many are waiting.
local waiting, id, request = ARGV[2], ARGV[3], ARGV[4]
local timeout_ms, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', now)
if redis.call('ZCARD', waiting) >= most then return 0 end
redis.call('ZADD', waiting, now + timeout_ms, id)
redis.call('PEXPIRE', waiting, timeout_ms)
redis.call('SET', ns .. 'validation:' .. id, request, 'PX', timeout_ms)
return 1
