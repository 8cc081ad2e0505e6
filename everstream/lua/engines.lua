-- What each engine that was heard of within its lease says of itself. ARGV: ns
local names = redis.call('SMEMBERS', ns .. 'engines')
if #names == 0 then return {} end
table.sort(names)
for i, name in ipairs(names) do names[i] = ns .. 'engine:' .. name end
return redis.call('MGET', unpack(names))
