-- KEYS: history, last_ts   ARGV: last_ts of the history, then its elements in stored order
-- Returns 1 when written, 0 when a scorer is already past it.
local live = tonumber(redis.call('GET', KEYS[2]))
if live and live > tonumber(ARGV[1]) and redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
-- Pushed before the old is trimmed away: a script whose first write only frees memory may go past maxmemory.
redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
redis.call('LTRIM', KEYS[1], 1 - #ARGV, -1)
return 1
