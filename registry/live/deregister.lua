if redis.call('EXISTS', INSTANCE) == 0 then return false end
remove(ARGV[3], INSTANCE, FACTS_OF)
return {epoch(), seq()}
