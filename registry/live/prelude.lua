-- Stands before every script of this directory; ops.py hands in the same first arguments to all of them.
-- All keys share one hash tag, so those that are the same in every call are named here and not sent along each time.
local PREFIX = 'anumate:{r}:'
local EPOCH, SEQ, CHANGES, LEASES = PREFIX .. 'epoch', PREFIX .. 'seq', PREFIX .. 'changes', PREFIX .. 'leases'
local FACTS, SWEPT, LANE, BACK = PREFIX .. 'facts', PREFIX .. 'swept', PREFIX .. 'lane', PREFIX .. 'back'
local COUNTS, HELD = PREFIX .. 'counts', PREFIX .. 'held'
local INSTANCE = KEYS[1]
local NEW_EPOCH, NOW = ARGV[1], tonumber(ARGV[2])
local AWAY_MS, KEPT_CHANGES = 5000, 10000

if not NOW then
  local time = redis.call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The store's identity: a store without one is new, or was wiped.
local function epoch()
  local known = redis.call('GET', EPOCH)
  if known then return known end
  redis.call('SET', EPOCH, NEW_EPOCH)
  return NEW_EPOCH
end

local function seq()
  return tonumber(redis.call('GET', SEQ) or 0)
end

-- Each change has the next number and one entry of that number, so that a reader sees a gap.
local function changed(op, key, ...)
  local number = redis.call('INCR', SEQ)
  redis.call('XADD', CHANGES, 'MAXLEN', '~', KEPT_CHANGES, number .. '-0', 'op', op, 'key', key, ...)
end

local function same_fact(known, fact)
  if not known or fact == '' then return (known or '') == fact end
  local a, b = cjson.decode(known), cjson.decode(fact)
  return a.value == b.value and a.sentence == b.sentence and a.expires_at == b.expires_at
end

-- `fact` is JSON, or empty to take it away. Answers whether anything changed.
local function set_fact(key, kind, fact)
  local facts = PREFIX .. 'f:' .. key
  if same_fact(redis.call('HGET', facts, kind), fact) then return false end
  if fact == '' then
    redis.call('HDEL', facts, kind)
    if redis.call('EXISTS', facts) == 0 then redis.call('SREM', FACTS, key) end
  else
    redis.call('HSET', facts, kind, fact)
    redis.call('SADD', FACTS, key)
  end
  changed('fact', key, 'kind', kind, 'fact', fact)
  return true
end

local function owners(key)
  return key:match('^([^/]*)/([^/]*)/')
end

-- How many leases there are: of all ('*'), of a tenant (its name), of a service (tenant/service); and how many services
-- a tenant has (tenant/).
local function count(key, by)
  local tenant, service = owners(key)
  redis.call('HINCRBY', COUNTS, '*', by)
  redis.call('HINCRBY', COUNTS, tenant, by)
  local left = redis.call('HINCRBY', COUNTS, tenant .. '/' .. service, by)
  if left == 0 then redis.call('HDEL', COUNTS, tenant .. '/' .. service) end
  if left == 0 or left == by then redis.call('HINCRBY', COUNTS, tenant .. '/', by) end
end

local function counted(name)
  return tonumber(redis.call('HGET', COUNTS, name) or 0)
end

-- A lease that is renewed is held no longer. Answers when it lapses.
local function renew(key, ttl)
  local expires = NOW + ttl * 1000
  if redis.call('ZADD', LEASES, expires, key) == 1 then count(key, 1) end
  if redis.call('ZREM', HELD, key) == 1 then set_fact(key, 'held', '') end
  return expires
end

-- What was found about an instance goes with it; what an operator decided stays.
local function remove(key)
  local facts = PREFIX .. 'f:' .. key
  redis.call('DEL', PREFIX .. 'i:' .. key)
  redis.call('ZREM', HELD, key)
  if redis.call('ZREM', LEASES, key) == 1 then count(key, -1) end
  for _, kind in ipairs(redis.call('HKEYS', facts)) do
    if kind ~= 'state' then redis.call('HDEL', facts, kind) end
  end
  if redis.call('EXISTS', facts) == 0 then redis.call('SREM', FACTS, key) end
  changed('gone', key)
end

-- Whoever wrote this stamp has been silent for so long that leases may have lapsed through no fault of their holders.
local function silent(stamp)
  local last = redis.call('GET', stamp)
  return not last or NOW - last > AWAY_MS
end
