if redis.call('EXISTS', INSTANCE) == 0 then return false end
remove(ARGV[3])
return {epoch(), seq()}
