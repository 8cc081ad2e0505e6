-- Begin jobs that were just claimed, unless they were stopped, abandoned or ended in the meantime.
-- ARGV: ns, retention_s, abandon_after_ms, calm_ms, the terminal entries for stopped and for abandoned ones, then for
-- each job: job id, generation. Returns for each its job, or '' if there is nothing to do; and for how many ms it has
-- been queued.
local retention_s, abandon_after_ms, calm_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stopped_entry, abandoned_entry = ARGV[5], ARGV[6]

local function begin(job_id, generation)
  local known = redis.call('HMGET', generation_key(generation), 'state', 'job', 'stop')
  if known[1] ~= 'open' then
    drop_job(job_id)
    return ''
  end
  if known[3] then
    close(generation, 'cancelled', stopped_entry, retention_s)
    return ''
  end
  if abandoned(generation, abandon_after_ms, calm_ms) then
    close(generation, 'cancelled', abandoned_entry, retention_s)
    return ''
  end
  return known[2]
end

local begun, now = {}, now_ms()
for at = 7, #ARGV, 2 do
  local job_id, generation = ARGV[at], ARGV[at + 1]
  local function on_foreign()
    discard(generation, job_id)
    return ''
  end
  begun[#begun + 1] = guarded(generation, on_foreign, begin, job_id, generation)
  -- Valkey makes a job's id from its clock, in ms.
  begun[#begun + 1] = now - string.match(job_id, '^%d+')
end
return begun
