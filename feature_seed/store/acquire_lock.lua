-- KEYS: lock   ARGV: owner, what the lock says (starts with the owner), lease in milliseconds
-- Returns 1 when it was free, 2 when it was the owner's already, else what it says.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
    return held
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return held and 2 or 1
