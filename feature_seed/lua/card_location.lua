-- KEYS: loc, last_ts, seq   ARGV: last_ts, seq, then lat and lon where the card has a location
-- Returns 1 when all was written, 0 when a scorer is already past the time, the count or both.
local written = 1
local live_ts = tonumber(redis.call('GET', KEYS[2]))
if live_ts and live_ts > tonumber(ARGV[1]) then
    written = 0
else
    redis.call('SET', KEYS[2], ARGV[1])
    if ARGV[3] then
        redis.call('HSET', KEYS[1], 'lat', ARGV[3], 'lon', ARGV[4])
    else
        redis.call('DEL', KEYS[1])
    end
end
local live_seq = tonumber(redis.call('GET', KEYS[3]))
if live_seq and live_seq > tonumber(ARGV[2]) then
    written = 0
else
    redis.call('SET', KEYS[3], ARGV[2])
end
return written
