-- KEYS: due, streaks, minutes. ARGV: prefix, minute, how many results to keep of each check, then for each result:
-- member, when it is due again, streak, result, failed (0 or 1), latency.
-- A check that has been taken off the list in the meantime leaves nothing behind.
local prefix, minute, kept = ARGV[1], ARGV[2], tonumber(ARGV[3])
local sums = prefix .. 'roll:' .. minute
for position = 4, #ARGV, 6 do
  local member, due, streak, result, failed, latency = unpack(ARGV, position, position + 5)
  if redis.call('ZSCORE', KEYS[1], member) then
    redis.call('ZADD', KEYS[1], due, member)
    redis.call('HSET', KEYS[2], member, streak)
    redis.call('LPUSH', prefix .. 'r:' .. member, result)
    redis.call('LTRIM', prefix .. 'r:' .. member, 0, kept - 1)
    local instance = string.match(member, '^(.*)|')
    local passes, failures, sum, longest = 0, 0, 0, 0
    local known = redis.call('HGET', sums, instance)
    if known then
      passes, failures, sum, longest = string.match(known, '(%S+) (%S+) (%S+) (%S+)')
    end
    redis.call('HSET', sums, instance, string.format('%d %d %.6f %.6f', passes + 1 - failed, failures + failed,
      sum + latency, math.max(longest, latency)))
    redis.call('SADD', KEYS[3], minute)
  end
end
