-- Stop a generation. One that no engine has claimed ends here, with the given terminal entry; for a claimed one
-- the wish is noted and its engine told, unless only queued ones are meant.
-- ARGV: ns, retention_s, generation, final state, terminal entry, '1' for only queued ones
-- Returns the state: '' (unknown), 'open' (left alone), 'stopping', or the final state.
local retention_s, generation, final, entry, only_queued = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key = generation_key(generation)
local known = redis.call('HMGET', key, 'state', 'job_id')
if not known[1] then return '' end
if known[1] ~= 'open' then return known[1] end
ensure_group()
if not redis.call('XPENDING', jobs, group, known[2], known[2], 1)[1] then
  close(generation, final, entry, retention_s)
  return final
end
if only_queued == '1' then return 'open' end
redis.call('HSET', key, 'stop', '1')
redis.call('PUBLISH', ns .. 'control', generation)
return 'stopping'
