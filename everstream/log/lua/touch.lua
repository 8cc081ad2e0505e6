-- Record which open generations have readers, and what the worker says of itself. Add to the counters.
-- ARGV: ns, worker or '', its status, ms after which that expires, number of counters, their names and increments, then
-- the generations
local worker, status, ttl_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])
local at = 6 + 2 * ARGV[5]
for i = 6, at - 1, 2 do count(ARGV[i], ARGV[i + 1]) end
local now = now_ms()
if worker ~= '' then
  redis.call('ZREMRANGEBYSCORE', ns .. 'workers', '-inf', now)
  redis.call('SET', ns .. 'worker:' .. worker, status, 'PX', ttl_ms)
  redis.call('ZADD', ns .. 'workers', now + ttl_ms, worker)
end
for i = at, #ARGV do redis.call('ZADD', ns .. 'read', 'XX', now, ARGV[i]) end
