-- How many ms the store has been back. A store that nobody looks after, or that was just wiped, is not back yet.
if silent(SWEPT) or silent(LANE) then return 0 end
return NOW - (redis.call('GET', BACK) or 0)
