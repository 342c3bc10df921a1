local ttl = redis.call('HGET', INSTANCE, 'ttl')
if not ttl then return false end
local expires = NOW + ttl * 1000
redis.call('ZADD', LEASES, expires, ARGV[3])
return {tonumber(ttl), expires, epoch(), seq()}
