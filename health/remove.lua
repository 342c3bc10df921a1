-- KEYS: due, streaks. ARGV: prefix, members. Answers the streak of each ('' where there was none) to whoever removed it,
-- and false to all others, so that only one of several workers tells of it.
local answer = {}
for position = 2, #ARGV do
  local member = ARGV[position]
  local removed = redis.call('ZREM', KEYS[1], member) == 1
  answer[#answer + 1] = removed and (redis.call('HGET', KEYS[2], member) or '')
  redis.call('HDEL', KEYS[2], member)
  redis.call('DEL', ARGV[1] .. 'r:' .. member)
end
return answer
