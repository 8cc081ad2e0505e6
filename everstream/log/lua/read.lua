-- Read the logs of generations, each above a given entry: up to about max_bytes in all, and at least one entry.
-- ARGV: ns, max_bytes, then for each: generation, after
-- Returns for each {} if the generation is unknown or expired, else {top, lines}.
local left = tonumber(ARGV[2])
local near = 4096

-- Where the first line begins whose predecessor ends at or after `from`, and its number; nil if that is not before `to`.
local function line_after(log, from, to)
  local size = 256
  while from < to do
    local window = redis.call('GETRANGE', log, from, math.min(from + size, to) - 1)
    local feed = string.find(window, '\n', 1, true)
    if feed then
      local start = from + feed
      if start >= to then return nil end
      return start, last_number(redis.call('GETRANGE', log, math.max(0, start - tail_bytes), start - 1)) + 1
    end
    -- An entry may be long.
    from, size = from + #window, size * 4
  end
end

-- Where a line begins that is not far before the entry `n`, or is its own, and its number.
local function search(log, n, length)
  local low, number, high = 0, 1, length
  while high - low > near do
    local middle = math.floor((low + high) / 2)
    local start, found = line_after(log, middle, high)
    if start and found <= n then low, number = start, found else high = middle end
  end
  return low, number
end

-- Where the line begins that comes so many lines after the one at `start`.
local function skip(log, start, lines)
  local size = near
  while lines > 0 do
    local window, from = redis.call('GETRANGE', log, start, start + size - 1), 1
    local feed = string.find(window, '\n', from, true)
    while feed and lines > 0 do
      from, lines = feed + 1, lines - 1
      feed = string.find(window, '\n', from, true)
    end
    if from == 1 then size = size * 4 end
    start = start + from - 1
  end
  return start
end

-- Whole lines from where one begins: as many as fit, and at least one.
local function lines_from(log, start, most)
  while true do
    local window = redis.call('GETRANGE', log, start, start + most - 1)
    local whole = string.match(window, '^.*\n')
    if whole or #window < most then return whole or '' end
    most = most * 2
  end
end

local function read(generation, after)
  if redis.call('EXISTS', generation_key(generation)) == 0 then return {} end
  local log = log_key(generation)
  local top = top_of(log)
  if after >= top or left <= 0 then return {top, ''} end
  local start, number = 0, 1
  if after > 0 then start, number = search(log, after + 1, redis.call('STRLEN', log)) end
  local lines = lines_from(log, skip(log, start, after + 1 - number), left)
  left = left - #lines
  return {top, lines}
end

local function unknown() return {} end

local pages = {}
for at = 3, #ARGV, 2 do pages[#pages + 1] = guarded(ARGV[at], unknown, read, ARGV[at], tonumber(ARGV[at + 1])) end
return pages
