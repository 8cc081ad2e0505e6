-- Delete a topic. ARGV: ns, topic. Returns 'deleted', 'unknown', or 'gone' if it was deleted but has forks.
local found = find_topic(ARGV[2])
if not found then return 'unknown' end
if found.deleted then return 'gone' end
purge(ARGV[2], found)
return 'deleted'
