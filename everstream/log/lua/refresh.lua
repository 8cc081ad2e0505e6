-- Refresh the leases of an engine's jobs. XCLAIM sets a pending entry's idle time, but here only for its owner, so that
-- a zombie can't steal back a job that went to another engine. An engine that shuts down sets the idle time to the
-- whole lease, which releases the job.
-- ARGV: ns, consumer, idle_ms, abandon_after_ms, calm_ms, retention_s, max_log_bytes, then for each job: job id,
-- generation, bytes of its entries, tokens. Returns 1 if the log is over its bound, else 0, then for each job: 'held', 'lost',
-- 'stop', 'abandoned' or 'foreign'.
local consumer, idle_ms, abandon_after_ms, calm_ms = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local retention_s, max_log_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
-- Of one command; Lua's stack holds a few thousand.
local most_arguments = 1000
local used, is_held = {}, {}

local function refresh_leases()
  local held = {}
  for _, pending in ipairs(redis.call('XPENDING', jobs, group, '-', '+', 1000000, consumer)) do is_held[pending[1]] = true end
  for at = 8, #ARGV, 4 do
    if is_held[ARGV[at]] then held[#held + 1] = ARGV[at] end
  end
  for at = 1, #held, most_arguments do
    local arguments = {unpack(held, at, math.min(#held, at + most_arguments - 1))}
    arguments[#arguments + 1], arguments[#arguments + 2] = 'IDLE', idle_ms
    arguments[#arguments + 1] = 'JUSTID'
    redis.call('XCLAIM', jobs, group, consumer, 0, unpack(arguments))
  end
end

local function verdict(job_id, generation, bytes, tokens)
  if not is_held[job_id] then return 'lost' end
  local fields = {'entries_bytes', 'tokens', 'stop', 'abandon_after_ms', 'state'}
  local known = redis.call('HMGET', generation_key(generation), unpack(fields))
  -- Without its hash, it can't be accounted for.
  if known[5] then note_used(used, generation, known, tonumber(bytes), tonumber(tokens)) end
  if known[3] then return 'stop' end
  if abandoned(generation, tonumber(known[4] or abandon_after_ms), calm_ms) then return 'abandoned' end
  return 'held'
end

ensure_group()
refresh_leases()
local function foreign() return 'foreign' end

local verdicts = {0}
local function judge_all()
  for at = 8, #ARGV, 4 do
    local job_id, generation, bytes, tokens = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    verdicts[#verdicts + 1] = guarded(generation, foreign, verdict, job_id, generation, bytes, tokens)
  end
end
local ok, failure = pcall(judge_all)
-- Whatever failed, what was noted of the generations before it counts for their clients, too.
account_used(used)
if not ok then error(failure) end
if sweep(retention_s, max_log_bytes) > max_log_bytes then verdicts[1] = 1 end
return verdicts
