-- Document, registration time and facts of each key handed in; false for a document that is not there.
local answer = {}
for position = 3, #ARGV do
  local key = ARGV[position]
  local known = redis.call('HMGET', PREFIX .. 'i:' .. key, 'doc', 'at')
  answer[#answer + 1] = {known[1], known[2], redis.call('HGETALL', PREFIX .. 'f:' .. key)}
end
return answer
