-- End a generation that its engine can't continue, wherever its log stands. Leave it alone if another engine has it.
-- ARGV: ns, consumer, retention_s, job id, generation, terminal entry
local consumer, retention_s, job_id, generation, entry = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
ensure_group()
if lease_of(job_id) ~= consumer then return end

local function fail()
  if redis.call('HGET', generation_key(generation), 'state') == 'open' then
    close(generation, 'failed', entry, retention_s)
  else
    drop_job(job_id)
  end
end

guarded(generation, function() discard(generation, job_id) end, fail)
