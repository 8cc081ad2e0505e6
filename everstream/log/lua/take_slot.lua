-- Count a client's open stream, unless as many are open as it may have. Each expires unless its worker refreshes it, so
-- a killed worker's don't count for long.
-- ARGV: ns, client, its limit, the stream's id, ms after which it expires. Returns 1, or 0 if it may have no more.
local slots, limit, stream, ttl_ms = ns .. 'slots/' .. ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if redis.call('ZCARD', slots) >= limit then return 0 end
redis.call('ZADD', slots, now + ttl_ms, stream)
redis.call('PEXPIRE', slots, ttl_ms)
return 1
