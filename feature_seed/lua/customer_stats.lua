-- KEYS: stats   ARGV: count, mean, M2
-- Returns 1 when written, 0 when a scorer has already counted more.
local live = tonumber(redis.call('HGET', KEYS[1], 'count'))
if live and live > tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'count', ARGV[1], 'mean', ARGV[2], 'M2', ARGV[3])
return 1
