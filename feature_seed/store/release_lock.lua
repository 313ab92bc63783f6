-- KEYS: lock   ARGV: owner
-- Another's lock is left alone.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
