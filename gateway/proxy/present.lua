-- A worker says that it is there, and hears who else is. Everything goes by the server's clock: workers' own may be wrong.
--
-- KEYS     the sorted set of the workers, each with the second in which it was last seen
-- ARGV     worker, seconds after which one that was not seen is gone, milliseconds that a report lives
-- Answers  how many workers there are, this one included; then of each other worker its name, its report ('' when it has
--          ended) and how many milliseconds old that is

local now = tonumber(redis.call('TIME')[1])
-- A time to come was written by another clock.
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
    redis.call('ZADD', KEYS[1], now, worker)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))

local workers = redis.call('ZRANGE', KEYS[1], 0, -1)
local answer = {#workers}
for _, worker in ipairs(workers) do
    if worker ~= ARGV[1] then
        local key = KEYS[1] .. ':' .. worker
        answer[#answer + 1] = worker
        answer[#answer + 1] = redis.call('GET', key) or ''
        answer[#answer + 1] = math.max(0, tonumber(ARGV[3]) - redis.call('PTTL', key))
    end
end
return answer
