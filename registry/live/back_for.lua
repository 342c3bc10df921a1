-- How many ms the store has been back; since ever when it was never away.
return NOW - (redis.call('GET', BACK) or 0)
