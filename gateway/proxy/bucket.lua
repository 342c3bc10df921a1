-- A token bucket that many workers share, and the leases they hold of it.
--
-- A lease is a number of tokens that one worker may give out by itself until the lease ends. At every moment
--     tokens in the bucket + tokens out on lease <= capacity,
-- so whatever the workers do with their leases, no more than capacity + rate * T is admitted in any time T. That is why
-- the bucket refills only up to its capacity minus what is out, moment by moment, and why a lease that has ended cannot
-- be given back: its tokens may have been replaced since.
--
-- A worker may give out some tokens before it asks, and owes them to the bucket until it tells: then there may be less
-- than none in it. The capacity is the policy's burst less what all workers together may owe, so that what is owed and
-- not told yet, too, stays within burst + rate * T.
--
-- What a worker gave out while it could not ask is owed, too, and takes the bucket down to its capacity below nothing at
-- most. What is owed is told again until there is an answer, under the serial number of the last message that had one:
-- what a later message told, whose answer was lost, has been counted, and only what came since is.
--
-- Messages and leases have serial numbers, which grow: a message that comes late, after the worker drew another lease or
-- told what it owes again, changes nothing.
--
-- KEYS     of each bucket a hash: t tokens, at microseconds, l:<worker> "<tokens> <ends at> <serial>",
--          o:<worker> "<owed> <told at> <serial>"
-- ARGV     worker, lease in microseconds, now in microseconds ('' for the server's time), then of each bucket one
--          text: rate per second, capacity, needed now, reserved on lease, wanted in advance, held of the own lease,
--          given back, owed, serial of the last message about what is owed that was answered, serial of the own
--          lease, serial of the next
-- Answers  for each bucket: granted now, leased, 1 when the own lease still counted, tokens left (or lacking),
--          microseconds to the next token, others

local worker, debt, lease, clock = 'l:' .. ARGV[1], 'o:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000000 + time[2]
end

local TOLD_FOR = 3600 * 1000000 -- how long it is known what a worker told, should its answer be lost

local function draw(key, rate, capacity, needed, reserved, wanted, held, given_back, owed, answered, serial, next_serial)
    local now = clock
    local tokens, at, own, out, told = capacity, now, nil, 0, nil
    local leases, ended = {}, {}
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
        local name, value = fields[i], fields[i + 1]
        if name == 't' then
            tokens = tonumber(value)
        elseif name == 'at' then
            at = tonumber(value)
        elseif name:sub(1, 2) == 'o:' then
            local size, moment, number = value:match('(%S+) (%S+) (%S+)')
            if name == debt then
                told = {size = tonumber(size), serial = tonumber(number)}
            elseif tonumber(moment) + TOLD_FOR < clock then
                ended[#ended + 1] = name
            end
        else
            local size, ends, number = value:match('(%S+) (%S+) (%S+)')
            local one = {name = name, size = tonumber(size), ends = tonumber(ends), serial = number}
            leases[#leases + 1] = one
            out = out + one.size
        end
    end
    if now < at then now = at end

    local function refill(moment)
        tokens = math.max(tokens, math.min(capacity - out, tokens + (moment - at) * rate))
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
    if #ended > 0 then redis.call('HDEL', key, unpack(ended)) end

    local late = own and tonumber(own.serial) >= tonumber(next_serial) or told and told.serial >= tonumber(next_serial)
    if late or needed + reserved + wanted + owed == 0 and not (own and own.serial == serial) then
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
    local due = owed
    if told and told.serial > answered then due = math.max(0, owed - told.size) end
    tokens = math.min(tokens, capacity - out - size)
    tokens = math.max(tokens - due, math.min(tokens, -capacity))

    local function give(most, of) return math.max(0, math.min(most, math.floor(of))) end
    local granted = give(needed, tokens)
    tokens = tokens - granted
    -- Whoever needs tokens of several buckets takes them from leases: one that another bucket's refusal leaves over can
    -- then be given back.
    reserved = give(reserved, tokens)
    tokens = tokens - reserved
    -- Nobody takes all that is left in advance: others have not asked yet.
    local leased = give(wanted, tokens / (others + 2))
    tokens = tokens - leased
    leased = leased + reserved
    size = size + leased

    local ttl = math.ceil((capacity - tokens) / rate / 1000) + math.ceil(lease / 1000) + 1000
    if size > 0 then
        redis.call('HSET', key, worker, string.format('%d %.0f %s', size, now + lease, next_serial))
    elseif own then
        redis.call('HDEL', key, worker)
    end
    if owed > 0 then redis.call('HSET', key, debt, string.format('%.6f %.0f %s', owed, clock, next_serial)) end
    redis.call('HSET', key, 't', string.format('%.6f', tokens), 'at', string.format('%.0f', at))
    -- Under a policy that was larger before, and may be again, it would have to live longer.
    ttl = math.max(ttl, redis.call('PTTL', key))
    redis.call('PEXPIRE', key, string.format('%.0f', math.min(ttl, 2592000000)))

    local wait = 0
    if tokens < 1 then wait = math.ceil((1 - tokens) / rate) end
    return {granted, leased, counted, math.floor(tokens), wait, others}
end

local answers = {}
for i, key in ipairs(KEYS) do
    local words = {}
    for word in ARGV[i + 3]:gmatch('%S+') do words[#words + 1] = word end
    local numbers = {}
    for j = 1, 9 do numbers[j] = tonumber(words[j]) end
    numbers[1] = numbers[1] / 1000000
    numbers[10], numbers[11] = words[10], words[11]
    answers[i] = draw(key, unpack(numbers))
end
return answers
