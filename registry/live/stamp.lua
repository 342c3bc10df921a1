-- The lane says that it is there; answers how many ms ago somebody swept.
if silent(LANE) then redis.call('SET', BACK, NOW) end
redis.call('SET', LANE, NOW)
return NOW - (redis.call('GET', SWEPT) or 0)
