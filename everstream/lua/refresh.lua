-- Refresh the leases of an engine's jobs: XCLAIM sets a pending entry's idle time to 0, but only for its owner, so
-- that a zombie cannot steal back what went to another.
-- ARGV: ns, consumer, then for each job: job id, generation. Returns for each: 'held', 'lost' or 'stop'.
local consumer = ARGV[2]
local verdicts = {}
for at = 3, #ARGV, 2 do
  local job_id, generation = ARGV[at], ARGV[at + 1]
  local pending = redis.call('XPENDING', jobs, group, job_id, job_id, 1)[1]
  if not pending or pending[2] ~= consumer then
    verdicts[#verdicts + 1] = 'lost'
  else
    redis.call('XCLAIM', jobs, group, consumer, 0, job_id, 'JUSTID')
    local stop = redis.call('HGET', generation_key(generation), 'stop')
    verdicts[#verdicts + 1] = stop and 'stop' or 'held'
  end
end
return verdicts
