return {epoch(), seq(), redis.call('ZRANGE', LEASES, 0, -1), redis.call('SMEMBERS', FACTS)}
