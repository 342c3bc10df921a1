return redis.call('ZSCAN', LEASES, ARGV[3], 'COUNT', ARGV[4])
