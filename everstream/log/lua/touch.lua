-- Record which open generations have readers, and add to the counters.
-- ARGV: ns, number of counters, their names and increments, then the generations
local at = 3 + 2 * ARGV[2]
for i = 3, at - 1, 2 do count(ARGV[i], ARGV[i + 1]) end
local now = now_ms()
for i = at, #ARGV do redis.call('ZADD', ns .. 'read', 'XX', now, ARGV[i]) end
