-- Claim jobs that nobody has claimed, the clients taking turns, and begin them.
-- ARGV: ns, consumer, maximum number of jobs, then what `begin` is given. Returns what it returned for each.
local consumer, wanted = ARGV[2], tonumber(ARGV[3])
local given = {unpack(ARGV, 4)}
local turns = of_queue('turns')
local check_every_ms = 10000

-- Nobody has a turn although jobs wait: the lists were lost, all or in part. Make them anew from the stream.
local function rebuild()
  local unclaimed = {}
  for _, job in ipairs(redis.call('XRANGE', jobs, '-', '+')) do
    if not lease_of(job[1]) then unclaimed[#unclaimed + 1] = {job[1], job[2][2], client_of(job[2][2])} end
  end
  for _, job in ipairs(unclaimed) do redis.call('UNLINK', waiting_key(job[3])) end
  for _, job in ipairs(unclaimed) do enqueue(job[3], job[1], job[2]) end
end

-- One that does not run any more, for example because its keys were lost, must not block its client for ever.
local function forget_ended(client)
  if not redis.call('SET', ns .. 'checked/' .. client, '', 'NX', 'PX', check_every_ms) then return end
  for _, generation in ipairs(redis.call('SMEMBERS', running_key(client))) do
    if redis.pcall('HGET', generation_key(generation), 'state') ~= 'open' then
      redis.call('SREM', running_key(client), generation)
    end
  end
end

-- Whether as many of a client's generations run as this one of its own allows.
local function is_at_limit(client, generation)
  local limit = redis.pcall('HGET', generation_key(generation), 'max_running')
  if type(limit) ~= 'string' then return false end
  if redis.call('SCARD', running_key(client)) >= tonumber(limit) then forget_ended(client) end
  return redis.call('SCARD', running_key(client)) >= tonumber(limit)
end

if redis.call('EXISTS', jobs) == 0 then return {} end
ensure_group()
if redis.call('EXISTS', turns) == 0 and redis.call('XLEN', jobs) > redis.call('XPENDING', jobs, group)[1] then
  rebuild()
end

-- `at`: how many clients in front of the others are at their limits. A client that was served goes to the end.
local begun, at = {}, 0
while #begun < wanted do
  local client = redis.call('LINDEX', turns, at)
  if not client then break end
  local job_id, generation = string.match(redis.call('LINDEX', waiting_key(client), 0) or '', '(%S+) (.*)')
  if job_id and is_at_limit(client, generation) then
    at = at + 1
  else
    redis.call('LREM', turns, 1, client)
    redis.call('LPOP', waiting_key(client))
    if redis.call('EXISTS', waiting_key(client)) == 1 then redis.call('RPUSH', turns, client) end
    -- FORCE: it is pending for nobody yet. Nothing is returned if the stream has lost it.
    if job_id and not lease_of(job_id) then
      local claimed = redis.call('XCLAIM', jobs, group, consumer, 0, job_id, 'FORCE', 'JUSTID')[1]
      if claimed then begun[#begun + 1] = begin_guarded(job_id, generation, given) end
    end
  end
end
return begun
