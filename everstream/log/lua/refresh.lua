-- Refresh the leases of an engine's jobs. XCLAIM sets a pending entry's idle time, but here only for its owner, so that
-- a zombie can't steal back a job that went to another engine. An engine that shuts down sets the idle time to the
-- whole lease, which releases the job.
-- ARGV: ns, consumer, idle_ms, abandon_after_ms, calm_ms, retention_s, max_log_bytes, then for each job: job id,
-- generation, bytes of its entries, tokens. Returns 1 if the log is over its bound, else 0, then for each job: 'held', 'lost',
-- 'stop', 'abandoned' or 'foreign'.
local consumer, idle_ms, abandon_after_ms, calm_ms = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local retention_s, max_log_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])

local function verdict(job_id, generation, bytes, tokens)
  if lease_of(job_id) ~= consumer then return 'lost' end
  redis.call('XCLAIM', jobs, group, consumer, 0, job_id, 'IDLE', idle_ms, 'JUSTID')
  account_entries(generation, bytes)
  account_tokens(generation, tokens)
  if redis.call('HGET', generation_key(generation), 'stop') then return 'stop' end
  if abandoned(generation, abandon_after_ms, calm_ms) then return 'abandoned' end
  return 'held'
end

ensure_group()
local function foreign() return 'foreign' end

local verdicts = {0}
for at = 8, #ARGV, 4 do
  local job_id, generation, bytes, tokens = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  verdicts[#verdicts + 1] = guarded(generation, foreign, verdict, job_id, generation, bytes, tokens)
end
if sweep(retention_s, max_log_bytes) > max_log_bytes then verdicts[1] = 1 end
return verdicts
