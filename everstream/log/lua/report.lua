-- Store an engine's status until it expires; remove the names and consumers of engines that are gone. Restore the
-- description of its model if the log has lost it.
-- ARGV: ns, name, status, ttl_ms, consumer, idle ms after which a consumer without jobs counts as gone, key of the
-- model's description, that description or '', then counters and increments
-- Returns 1 if the engine has been asked to kill itself, else 0.
local name, status, ttl_ms, consumer, gone_ms = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local names, now = ns .. 'engine_names', now_ms()
redis.call('SET', ns .. 'engine:' .. name, status, 'PX', ttl_ms)
redis.call('ZADD', names, now + ttl_ms, name)
redis.call('ZREMRANGEBYSCORE', names, '-inf', now)
if ARGV[8] ~= '' then redis.call('SET', ARGV[7], ARGV[8], 'NX') end
for at = 9, #ARGV, 2 do count(ARGV[at], ARGV[at + 1]) end
local is_to_die = redis.call('GETDEL', ns .. 'kill:' .. name) and 1 or 0

-- A deleted consumer that comes back is recreated; one that has jobs keeps them until their lease expires.
if redis.call('EXISTS', jobs) == 0 then return is_to_die end
ensure_group()
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', jobs, group)) do
  local found = {}
  for at = 1, #fields, 2 do found[fields[at]] = fields[at + 1] end
  if found.name ~= consumer and found.pending == 0 and found.idle > gone_ms then
    redis.call('XGROUP', 'DELCONSUMER', jobs, group, found.name)
  end
end
return is_to_die
