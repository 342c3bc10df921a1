-- Ends lapsed leases, a limited number at a time. After the store or the lane was away nobody could renew:
-- then a lease ends only when the store has been back for that lease's own time.
local limit = tonumber(ARGV[3])
if silent(SWEPT) or silent(LANE) then redis.call('SET', BACK, NOW) end
redis.call('SET', SWEPT, NOW)
local back = tonumber(redis.call('GET', BACK) or 0)

local gone, held = {}, 0
repeat
  local lapsed = redis.call('ZRANGEBYSCORE', LEASES, '-inf', NOW, 'LIMIT', held, limit)
  for _, key in ipairs(lapsed) do
    local instance = PREFIX .. 'i:' .. key
    local ttl = tonumber(redis.call('HGET', instance, 'ttl') or 0)
    if #gone < limit and NOW >= back + ttl * 1000 then
      remove(key, instance, PREFIX .. 'f:' .. key)
      gone[#gone + 1] = key
    else
      held = held + 1
    end
  end
until #lapsed < limit or #gone >= limit or held >= 10 * limit
return gone
