-- Document, registration time and facts of each key handed in; false for a document that is not there.
local prefix, answer = ARGV[3], {}
for position = 4, #ARGV do
  local key = ARGV[position]
  local known = redis.call('HMGET', prefix .. 'i:' .. key, 'doc', 'at')
  answer[#answer + 1] = {known[1], known[2], redis.call('HGETALL', prefix .. 'f:' .. key)}
end
return answer
