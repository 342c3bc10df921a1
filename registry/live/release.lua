-- Lets the next sweep end what is held of a tenant, or of one of its services. Answers how many instances that are.
local prefix, released = ARGV[3], 0
for _, key in ipairs(redis.call('ZRANGE', HELD, 0, -1)) do
  if key:sub(1, #prefix) == prefix then
    redis.call('ZADD', LEASES, 'XX', NOW, key)
    released = released + 1
  end
end
return released
