-- Shared by every script. All keys carry one hash tag, so they live in one slot of a cluster.
local ns = ARGV[1]
local jobs, live = ns .. 'jobs', ns .. 'live'
local group = 'engines'

local function generation_key(generation) return ns .. 'gen:' .. generation end
local function log_key(generation) return ns .. 'log:' .. generation end

local function ensure_group()
  redis.pcall('XGROUP', 'CREATE', jobs, group, '0', 'MKSTREAM')
end

-- An entry travels live just as it stands in the log: [generation, first n, [entry, ...]].
local function batch(generation, first, entries)
  return '["' .. generation .. '",' .. first .. ',[' .. table.concat(entries, ',') .. ']]'
end

local function publish(batches)
  if #batches > 0 then redis.call('PUBLISH', live, '[' .. table.concat(batches, ',') .. ']') end
end

-- After its terminal entry a generation holds no job, and its keys expire.
local function finish(generation, state, retention_s)
  local key = generation_key(generation)
  local known = redis.call('HMGET', key, 'job_id', 'request_key')
  redis.call('HSET', key, 'state', state)
  redis.call('EXPIRE', key, retention_s)
  redis.call('EXPIRE', log_key(generation), retention_s)
  if known[2] and known[2] ~= '' then redis.call('EXPIRE', known[2], retention_s) end
  if known[1] then
    redis.call('XACK', jobs, group, known[1])
    redis.call('XDEL', jobs, known[1])
  end
end
