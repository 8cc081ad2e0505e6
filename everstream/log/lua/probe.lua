-- Try the commands that submit, append and finish need, on separate keys. What Valkey refuses here, it refuses to every
-- process.
-- ARGV: ns
local hash, stream, set, number = ns .. 'probe:hash', ns .. 'probe:stream', ns .. 'probe:set', ns .. 'probe:number'
redis.call('HSET', hash, 'field', 'text')
redis.call('HSTRLEN', hash, 'field')
redis.call('HMGET', hash, 'field')
redis.call('HGET', hash, 'field')
redis.call('HINCRBY', hash, 'number', 1)
redis.call('HDEL', hash, 'number')
redis.call('XADD', stream, '1-0', 'entry', '')
redis.call('XRANGE', stream, '-', '+')
redis.call('XSETID', stream, '2-0')
redis.call('XDEL', stream, '1-0')
redis.call('XLEN', stream)
redis.call('ZADD', set, now_ms(), 'member')
redis.call('ZRANGE', set, 0, 0)
redis.call('ZREM', set, 'member')
redis.call('SET', number, 1)
redis.call('INCRBY', number, 1)
redis.call('GET', number)
redis.call('EXPIRE', number, 1)
redis.call('UNLINK', hash, stream, set, number)
redis.call('PUBLISH', ns .. 'probe', '')
