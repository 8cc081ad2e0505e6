-- Put a question to the engines, unless too many wait already. What nobody answers in time is forgotten by itself.
-- ARGV: ns, the list of questions that it belongs to, id, question, how long its asker waits in ms, how many may wait
-- Returns 1, or 0: too many wait.
local waiting, id, question = ARGV[2], ARGV[3], ARGV[4]
local patience_ms, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', now)
if redis.call('ZCARD', waiting) >= most then return 0 end
redis.call('ZADD', waiting, now + patience_ms, id)
redis.call('PEXPIRE', waiting, patience_ms)
redis.call('SET', ns .. 'ask:' .. id, question, 'PX', patience_ms)
return 1
