local ttl = redis.call('HGET', INSTANCE, 'ttl')
if not ttl then return false end
return {tonumber(ttl), renew(ARGV[3], ttl), epoch(), seq()}
