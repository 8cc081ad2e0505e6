-- Forget a finished generation before its time. One that is still open only loses its record: its engine writes to its
-- log until it has stopped.
-- ARGV: ns, generation
local generation = ARGV[2]
local key = generation_key(generation)
local state = redis.call('HGET', key, 'state')
if not state then return end
local record = redis.call('HSTRLEN', key, 'record')
redis.call('HDEL', key, 'record')
if state == 'open' then
  account(generation, -record)
else
  remove(generation)
end
