-- Read the logs of generations, each above a given entry: up to about max_bytes in all, and at least one entry.
-- ARGV: ns, max_bytes, then for each: generation, after
-- Returns for each {} if the generation is unknown or expired, else {top, lines}.
local left = tonumber(ARGV[2])
local near = 4096

-- Where a line begins at or after `from`, and its number; nil if none does before `to`.
local function line_from(log, from, to)
  local size = 256
  while true do
    -- With the byte before, which ends the line before if one begins right here.
    local window = redis.call('GETRANGE', log, from - 1, math.min(from + size, to) - 1)
    local start, n = string.match(window, '\n()(%d+)\t')
    if n then return from - 2 + start, tonumber(n) end
    if from + size >= to then return nil end
    size = size * 4
  end
end

-- Where a line begins that is not far before the first one above `after`.
local function search(log, after, length)
  local low, high = 0, length
  while high - low > near do
    local middle = math.floor((low + high) / 2)
    local start, n = line_from(log, middle, high)
    if start and n <= after then low = start else high = middle end
  end
  return low
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

-- The same, but only those above `after`.
local function lines_above(log, after, most, length)
  local start = after > 0 and search(log, after, length) or 0
  while true do
    local lines = lines_from(log, start, most)
    if lines == '' then return '' end
    local from = 1
    while from <= #lines and tonumber(string.match(lines, '^%d+', from)) <= after do
      from = string.find(lines, '\n', from, true) + 1
    end
    if from <= #lines then return string.sub(lines, from) end
    start = start + #lines
  end
end

local function read(generation, after)
  if redis.call('EXISTS', generation_key(generation)) == 0 then return {} end
  local log = log_key(generation)
  local top = top_of(log)
  if after >= top or left <= 0 then return {top, ''} end
  local lines = lines_above(log, after, left, redis.call('STRLEN', log))
  left = left - #lines
  return {top, lines}
end

local function unknown() return {} end

local pages = {}
for at = 3, #ARGV, 2 do pages[#pages + 1] = guarded(ARGV[at], unknown, read, ARGV[at], tonumber(ARGV[at + 1])) end
return pages
