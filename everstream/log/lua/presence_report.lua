-- Say who follows topics in one web process. ARGV: ns, the process, ms after which that expires, then for each topic:
-- the topic, and what `presence.Present` is in JSON, or '' for nobody.
local worker, ttl_ms, now = ARGV[2], tonumber(ARGV[3]), now_ms()
for at = 4, #ARGV, 2 do
  local key = ns .. 'present:' .. ARGV[at]
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key, worker)
  else
    redis.call('HSET', key, worker, string.format('%.0f', now + ttl_ms) .. ' ' .. ARGV[at + 1])
    redis.call('PEXPIRE', key, ttl_ms)
  end
end
