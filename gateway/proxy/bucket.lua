-- A token bucket that many workers share, and the leases they hold of it.
--
-- A lease is a number of tokens that one worker may give out by itself until the lease ends. At every moment
--     tokens in the bucket + tokens out on lease <= burst,
-- so whatever the workers do with their leases, no more than burst + rate * T is admitted in any time T. That is why
-- the bucket refills only up to burst minus what is out, moment by moment, and why a lease that has ended cannot be
-- given back: its tokens may have been replaced since.
--
-- A lease has a serial number: a message that comes late, after the worker drew another lease, changes nothing.
--
-- KEYS[1]  hash: t tokens, at microseconds, l:<worker> "<tokens> <ends at> <serial>"
-- ARGV     worker, rate per second, burst, needed now, wanted in advance, held of the own lease, given back,
--          serial of the own lease, serial of the next, lease in microseconds,
--          now in microseconds ('' for the server's time)
-- Answers  granted now, leased, 1 when the own lease still counted, tokens left, microseconds to the next token, others

local worker, rate, burst = 'l:' .. ARGV[1], tonumber(ARGV[2]) / 1000000, tonumber(ARGV[3])
local needed, wanted = tonumber(ARGV[4]), tonumber(ARGV[5])
local held, given_back, serial, next_serial = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local lease, now = tonumber(ARGV[10]), tonumber(ARGV[11])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end

local tokens, at, own, out = burst, now, nil, 0
local leases, ended = {}, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 't' then
        tokens = tonumber(value)
    elseif name == 'at' then
        at = tonumber(value)
    else
        local size, ends, number = value:match('(%S+) (%S+) (%S+)')
        local one = {name = name, size = tonumber(size), ends = tonumber(ends), serial = number}
        leases[#leases + 1] = one
        out = out + one.size
    end
end
if now < at then now = at end

local function refill(moment)
    tokens = math.max(tokens, math.min(burst - out, tokens + (moment - at) * rate))
    at = moment
end

table.sort(leases, function(a, b) return a.ends < b.ends end)
local others = 0
for _, one in ipairs(leases) do
    if one.ends <= now then
        if one.ends > at then refill(one.ends) end
        out = out - one.size
        ended[#ended + 1] = one.name
    elseif one.name == worker then
        own = one
    else
        others = others + 1
    end
end
refill(now)
if #ended > 0 then redis.call('HDEL', KEYS[1], unpack(ended)) end

if needed + wanted == 0 and not (own and own.serial == serial) then
    return {0, 0, 0, math.floor(tokens), 0, others}
end
local counted, size = 0, 0
if own and own.serial ~= serial then
    out = out - own.size -- its answer was lost, so the worker never had it
elseif own then
    counted = 1
    given_back = math.min(given_back, own.size)
    size = math.min(held, own.size - given_back)
    tokens = tokens + given_back
    out = out - own.size
end
tokens = math.min(tokens, burst - out - size)

local granted = math.min(needed, math.floor(tokens))
tokens = tokens - granted
-- Nobody takes all that is left in advance: others have not asked yet.
local leased = math.max(0, math.min(wanted, math.floor(tokens / (others + 2))))
tokens = tokens - leased
size = size + leased

local ttl = math.ceil((burst - tokens) / rate / 1000) + math.ceil(lease / 1000) + 1000
if size > 0 then
    redis.call('HSET', KEYS[1], worker, string.format('%d %.0f %s', size, now + lease, next_serial))
elseif own then
    redis.call('HDEL', KEYS[1], worker)
end
redis.call('HSET', KEYS[1], 't', string.format('%.6f', tokens), 'at', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(ttl, 2592000000)))

local wait = 0
if tokens < 1 then wait = math.ceil((1 - tokens) / rate) end
return {granted, leased, counted, math.floor(tokens), wait, others}
