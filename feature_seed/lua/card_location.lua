-- Where and when a card was last used. Whether events came since gold is told by its count, see card_history.lua; which
-- of both is later, by time alone: right before and after the card's list is merged, and with events in between.
--
-- KEYS: loc, last_ts, seq, seeded   ARGV: last_ts, then lat and lon where gold has a location
-- Returns 1 when the card is as gold has it, 0 when the live time or place is kept.
local live_ts = tonumber(redis.call('GET', KEYS[2]))
local touched = live_ts and redis.call('GET', KEYS[3]) ~= redis.call('GET', KEYS[4])
-- At the same time the live event is the later one, since gold does not hold it.
if touched and live_ts >= tonumber(ARGV[1]) then
    -- Live events may all be without coordinates: then gold's are the latest.
    if ARGV[2] and redis.call('EXISTS', KEYS[1]) == 0 then
        redis.call('HSET', KEYS[1], 'lat', ARGV[2], 'lon', ARGV[3])
    end
    return 0
end
redis.call('SET', KEYS[2], ARGV[1])
if ARGV[2] then
    redis.call('HSET', KEYS[1], 'lat', ARGV[2], 'lon', ARGV[3])
elseif not touched then
    redis.call('DEL', KEYS[1])
end
return 1
