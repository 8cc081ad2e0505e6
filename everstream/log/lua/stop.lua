-- Stop a generation. If no engine has claimed it, it ends here, with the given terminal entry. If one has, `claimed`
-- decides: 'ask' records the request and tells the engine, 'leave' leaves it alone, 'end' ends it here too if its lease
-- has expired.
-- ARGV: ns, retention_s, generation, final state, terminal entry, claimed, lease_ms
-- Returns the state: '' (unknown), 'open' (left alone), 'stopping', or the final state.
local retention_s, generation, final, entry, claimed = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local lease_ms = tonumber(ARGV[7])
local key = generation_key(generation)
local known = redis.call('HMGET', key, 'state', 'job_id', 'queue')
if not known[1] then return '' end
if known[1] ~= 'open' then return known[1] end
-- The caller knows only the id.
if known[3] and known[3] ~= '' then jobs = ns .. 'jobs:' .. known[3] end
ensure_group()
local owner, idle_ms = lease_of(known[2])
if not owner or claimed == 'end' and idle_ms >= lease_ms then
  close(generation, final, entry, retention_s)
  return final
end
if claimed ~= 'ask' then return 'open' end
redis.call('HSET', key, 'stop', '1')
redis.call('PUBLISH', ns .. 'control', generation)
return 'stopping'
