-- Only a newer revision of the same database, or another database, may replace a section; an equal body wakes nobody.
local SECTIONS, name = KEYS[1], ARGV[1]
local origin, revision, digest, body, channel = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local known = redis.call('HMGET', SECTIONS, name .. ':origin', name .. ':rev', name .. ':digest')
if known[1] == origin and revision <= tonumber(known[2] or -1) then return 0 end
redis.call('HSET', SECTIONS, name .. ':origin', origin, name .. ':rev', ARGV[3])
if known[3] == digest then return 0 end
redis.call('HSET', SECTIONS, name .. ':digest', digest, name .. ':body', body)
redis.call('PUBLISH', channel, name)
return 1
