-- KEYS: due. ARGV: how many, hold in ms.
-- Takes the checks that are due, longest overdue first, and hides them for the hold: a worker that dies with a claim
-- only delays it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for position = 1, #found, 2 do
  redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], found[position])
end
return found
