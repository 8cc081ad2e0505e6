-- Record which open generations have readers, and how many streams the worker has open. Add to the counters.
-- ARGV: ns, worker or '', its open streams, ms after which that number expires, number of counters, their names and
-- increments, then the generations
local worker, streams, ttl_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local at = 6 + 2 * ARGV[5]
for i = 6, at - 1, 2 do count(ARGV[i], ARGV[i + 1]) end
local now = now_ms()
if worker ~= '' then
  redis.call('ZREMRANGEBYSCORE', ns .. 'workers', '-inf', now)
  redis.call('SET', ns .. 'streams:' .. worker, streams, 'PX', ttl_ms)
  redis.call('ZADD', ns .. 'workers', now + ttl_ms, worker)
end
for i = at, #ARGV do redis.call('ZADD', ns .. 'read', 'XX', now, ARGV[i]) end
