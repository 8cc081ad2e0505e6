-- Claim jobs that nobody has claimed, the lanes taking turns, and begin them.
-- ARGV: ns, consumer, maximum number of jobs, then what `begin` is given. Returns what it returned for each.
local consumer, wanted = ARGV[2], tonumber(ARGV[3])
local given = {unpack(ARGV, 4)}
local turns = of_queue('turns')

-- The lists have no job although the stream has: they were lost, or an earlier version queued it.
local function rebuild()
  for _, job in ipairs(redis.call('XRANGE', jobs, '-', '+')) do
    if not lease_of(job[1]) then enqueue(lane_of(job[2][2]), job[1], job[2][2]) end
  end
end

-- Whether as many of a lane's generations run as its next one allows.
local function is_at_limit(lane)
  local generation = string.match(redis.call('LINDEX', waiting_key(lane), 0) or '', ' (.*)')
  local limit = generation and redis.pcall('HGET', generation_key(generation), 'max_running')
  if type(limit) ~= 'string' or redis.call('SCARD', running_key(lane)) < tonumber(limit) then return false end
  -- One that does not run any more, for example because its keys were lost, must not block the lane for ever.
  for _, running in ipairs(redis.call('SMEMBERS', running_key(lane))) do
    if redis.pcall('HGET', generation_key(running), 'state') ~= 'open' then
      redis.call('SREM', running_key(lane), running)
    end
  end
  return redis.call('SCARD', running_key(lane)) >= tonumber(limit)
end

if redis.call('EXISTS', jobs) == 0 then return {} end
ensure_group()
if redis.call('EXISTS', turns) == 0 and redis.call('XLEN', jobs) > redis.call('XPENDING', jobs, group)[1] then rebuild() end

local begun, blocked = {}, {}
while #begun < wanted do
  local lane = redis.call('LPOP', turns)
  if not lane then break end
  if is_at_limit(lane) then
    blocked[#blocked + 1] = lane
  else
    local job_id, generation = string.match(redis.call('LPOP', waiting_key(lane)) or '', '(%S+) (.*)')
    if redis.call('EXISTS', waiting_key(lane)) == 1 then redis.call('RPUSH', turns, lane) end
    -- FORCE: it is pending for nobody yet. Nothing is returned if the stream has lost it.
    if job_id and not lease_of(job_id) then
      local claimed = redis.call('XCLAIM', jobs, group, consumer, 0, job_id, 'FORCE', 'JUSTID')[1]
      if claimed then begun[#begun + 1] = begin_guarded(job_id, generation, given) end
    end
  end
end
for at = #blocked, 1, -1 do redis.call('LPUSH', turns, blocked[at]) end
return begun
