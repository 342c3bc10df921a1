-- A new or changed document is a change; an equal one only renews the lease. Quotas keep out only who is new.
local key, doc, ttl, check = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local most_services, most_instances = tonumber(ARGV[7]), tonumber(ARGV[8])
local known = redis.call('HMGET', INSTANCE, 'doc', 'at')
if not known[1] then
  local tenant, service = owners(key)
  if most_instances and counted(tenant) >= most_instances then return {'instances', most_instances} end
  if most_services and counted(tenant .. '/' .. service) == 0 and counted(tenant .. '/') >= most_services then
    return {'services', most_services}
  end
end
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
