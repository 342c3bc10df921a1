-- Ends lapsed leases, a limited number at a time, and holds those that lapse in a crowd.
-- After the store or the lane was away nobody could renew: then a lease ends only when the store has been back for that
-- lease's own time. And where many leases of a tenant lapse at once, it is more likely our network that broke than all
-- of its instances: of each 100, 15 may end within a minute, as in Eureka, and the others are held for ten minutes.
local limit = tonumber(ARGV[3])
local ENDED = PREFIX .. 'ended'
local WINDOW_MS, HOLD_MS, FEWEST, KEPT = 60000, 600000, 10, 0.85
local WHY = 'More than 15 % of the leases of this tenant lapsed within a minute, so it is kept: '
  .. 'until it renews, until it is released, or for 10 minutes.'

if silent(SWEPT) or silent(LANE) then redis.call('SET', BACK, NOW) end
redis.call('SET', SWEPT, NOW)
local back = tonumber(redis.call('GET', BACK) or 0)

-- The counts of a store that an older version wrote to.
local function count_anew()
  redis.call('DEL', COUNTS)
  for _, key in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do count(key, 1) end
end

-- Those go first whose service has most left, so that no service is gone before others have lost any.
local function most_left_first(keys)
  local left, rank = {}, {}
  for _, key in ipairs(keys) do
    local tenant, service = owners(key)
    local known = left[service] or counted(tenant .. '/' .. service)
    rank[key], left[service] = known, known - 1
  end
  table.sort(keys, function(a, b)
    if rank[a] ~= rank[b] then return rank[a] > rank[b] end
    return a < b
  end)
end

-- When the tenant's window began, and how many of its leases have ended in it.
local function window(tenant)
  local since, ended = (redis.call('HGET', ENDED, tenant) or ''):match('^(%d+):(%d+)$')
  if not since or NOW - since >= WINDOW_MS then return NOW, 0 end
  return tonumber(since), tonumber(ended)
end

local function hold(key)
  local fact = {value = 'held', sentence = WHY, source = 'sweep', since = NOW / 1000, expires_at = (NOW + HOLD_MS) / 1000}
  redis.call('ZADD', HELD, NOW, key)
  redis.call('ZADD', LEASES, NOW + HOLD_MS, key)
  set_fact(key, 'held', cjson.encode(fact))
end

local gone = {}
local function finish(key)
  remove(key)
  gone[#gone + 1] = key
end

local function finish_or_hold(tenant, keys)
  local since, ended = window(tenant)
  local all, may_end = counted(tenant) + ended, #keys
  if all >= FEWEST then
    may_end = math.min(#keys, math.max(0, all - math.floor(all * KEPT) - ended))
  end
  if may_end < #keys then most_left_first(keys) end
  for position, key in ipairs(keys) do
    if position > may_end then
      hold(key)
    elseif #gone < limit then
      finish(key)
      ended = ended + 1
    end
  end
  redis.call('HSET', ENDED, tenant, string.format('%.0f:%d', since, ended))
end

if counted('*') ~= redis.call('ZCARD', LEASES) then count_anew() end
local tenants, crowds = {}, {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', NOW, 'LIMIT', 0, 10 * limit)) do
  local ttl = tonumber(redis.call('HGET', PREFIX .. 'i:' .. key, 'ttl') or 0)
  if NOW < back + ttl * 1000 then
    redis.call('ZADD', LEASES, back + ttl * 1000, key)
  elseif redis.call('ZSCORE', HELD, key) then
    if #gone < limit then finish(key) end
  else
    local tenant = owners(key)
    if not crowds[tenant] then
      tenants[#tenants + 1], crowds[tenant] = tenant, {}
    end
    table.insert(crowds[tenant], key)
  end
end
for _, tenant in ipairs(tenants) do finish_or_hold(tenant, crowds[tenant]) end
return gone
