-- KEYS: lock   ARGV: owner, what the lock says (starts with the owner), lease in milliseconds; 0 frees it
-- Returns 1 if the lock was free, 2 if it was the owner's already, else its text: another owner's lock is left alone.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
    return held
elseif ARGV[3] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return held and 2 or 1
