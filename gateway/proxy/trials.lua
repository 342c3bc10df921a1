-- The leases of the trials: whose trials a service gets, of all the workers whose breakers wait for it.
--
-- A worker takes each lease under a new name, so a message that comes late changes nothing for a later one.
--
-- KEYS     of each lease its holder's name
-- ARGV     of each lease one text: name, milliseconds (0: give it back), 1 to hold one's own for so long from now,
--          1 to take it where nobody has it
-- Answers  for each lease: for how many milliseconds it is held under that name

local answers = {}
for i, key in ipairs(KEYS) do
    local name, life, renews, takes = ARGV[i]:match('(%S+) (%d+) (%d) (%d)')
    local holder = redis.call('GET', key)
    answers[i] = 0
    if holder == name and life == '0' then
        redis.call('DEL', key)
    elseif holder == name and renews == '0' then
        answers[i] = math.max(0, redis.call('PTTL', key))
    elseif life ~= '0' and (holder == name or (takes == '1' and not holder)) then
        redis.call('SET', key, name, 'PX', life)
        answers[i] = tonumber(life)
    end
end
return answers
