-- A verdict that comes after its instance has left would never be taken away again; an operator's word may come first.
local key, kind, fact, needs_instance = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if fact ~= '' and needs_instance == '1' and redis.call('EXISTS', INSTANCE) == 0 then return false end
if not set_fact(key, kind, fact) then return false end
return {epoch(), seq()}
