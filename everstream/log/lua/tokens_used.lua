-- How many tokens a client's generations had in the last whole minute and in this one, and for how many ms this one has
-- lasted, by the clock that they were counted by. ARGV: ns, client
local now = now_ms()
local minute = math.floor(now / 60000)
local function of(each) return tonumber(redis.call('GET', ns .. 'tokens/' .. each .. '/' .. ARGV[2]) or 0) end
return {of(minute - 1), of(minute), now % 60000}
