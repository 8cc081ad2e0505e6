-- Note that topics are being read. ARGV: ns, topics. Returns the number of the last message of the live channel.
for at = 2, #ARGV do
  local found = find_topic(ARGV[at])
  if found then keep_alive(ARGV[at], found) end
end
sweep_topics()
return tonumber(redis.call('HGET', clock_key, 'sent') or 0)
