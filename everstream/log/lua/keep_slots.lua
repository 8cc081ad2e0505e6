-- Refresh a worker's open streams of clients with a limit. ARGV: ns, ms after which they expire, then for each: client,
-- the stream's id
local ttl_ms, now = tonumber(ARGV[2]), now_ms()
for at = 3, #ARGV, 2 do
  -- XX: it may have been released meanwhile.
  redis.call('ZADD', ns .. 'slots/' .. ARGV[at], 'XX', now + ttl_ms, ARGV[at + 1])
  redis.call('PEXPIRE', ns .. 'slots/' .. ARGV[at], ttl_ms)
end
