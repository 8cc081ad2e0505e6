-- Look at jobs that were just claimed: what was stopped, abandoned or ended meanwhile is not begun.
-- ARGV: ns, retention_s, abandon_after_ms (0: don't ask), the terminal entries for stopped and for abandoned ones, then
-- for each job: job id, generation. Returns for each its job, or '' where there is nothing to do.
local retention_s, abandon_after_ms, stopped, left = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local function begin(job_id, generation)
  local known = redis.call('HMGET', generation_key(generation), 'state', 'job', 'stop')
  if known[1] ~= 'open' then
    drop_job(job_id)
    return ''
  end
  if known[3] then
    close(generation, 'cancelled', stopped, retention_s)
    return ''
  end
  if abandoned(generation, abandon_after_ms) then
    close(generation, 'cancelled', left, retention_s)
    return ''
  end
  return known[2]
end

local begun = {}
for at = 6, #ARGV, 2 do
  local job_id, generation = ARGV[at], ARGV[at + 1]
  local function without()
    discard(generation, job_id)
    return ''
  end
  begun[#begun + 1] = guarded(generation, without, begin, job_id, generation)
end
return begun
