-- A new or changed document is a change; an equal one only renews the lease.
local key, doc, ttl, check = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local known = redis.call('HMGET', INSTANCE, 'doc', 'at')
local outcome, at = 'renewed', known[2]
if known[1] ~= doc then
  outcome = known[1] and 'changed' or 'created'
  at = at or string.format('%.3f', NOW / 1000)
  redis.call('HSET', INSTANCE, 'doc', doc, 'at', at, 'ttl', ttl)
  changed('put', key, 'doc', doc, 'at', at)
end
set_fact(key, 'check', check)
local expires = renew(key, ttl)
return {outcome, at, expires, epoch(), seq()}
