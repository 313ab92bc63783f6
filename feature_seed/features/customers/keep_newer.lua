-- A customer's Welford state. It has neither ids nor times: counts alone decide.
--
-- KEYS: stats   ARGV: '1' for a first load, count, mean, M2
-- Returns 1 when the customer is as gold has it, 0 when live events are kept or merged.
--
-- Invariant: `seeded` is gold's count when it was last loaded. It is the live count when no event came since, and smaller
-- when live events are kept.
local stored = redis.call('HMGET', KEYS[1], 'count', 'mean', 'M2', 'seeded')
local live, mean, m2, marker = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3]), tonumber(stored[4])
local count = tonumber(ARGV[2])
if not (live and mean and m2) then
    live = 0
end
local seeded, first_load = marker, ARGV[1] == '1'
if seeded and live < seeded then
    -- Without the seed: a scorer wrote back what it had computed before it. Nothing in it is gold's.
    seeded, first_load = nil, first_load or seeded == count
end

if live > 0 and first_load and not seeded then
    -- Never seeded, and its stream began after the watermark: both count (Chan, Golub and LeVeque 1979).
    local total = count + live
    local delta = mean - tonumber(ARGV[3])
    redis.call('HSET', KEYS[1],
        'count', string.format('%.0f', total),
        'mean', string.format('%.17g', tonumber(ARGV[3]) + delta * live / total),
        'M2', string.format('%.17g', tonumber(ARGV[4]) + m2 + delta * delta * count * live / total),
        'seeded', ARGV[2])
    return 0
end
-- Live events stay until gold has caught up with them. It does so by its count: whether event by event cannot be known
-- here, nor whether a smaller count is a correction. A stream restarted at the watermark decides both (README).
if live ~= seeded and live > count then
    if marker ~= count then
        redis.call('HSET', KEYS[1], 'seeded', ARGV[2])
    end
    return 0
end
redis.call('HSET', KEYS[1], 'count', ARGV[2], 'mean', ARGV[3], 'M2', ARGV[4], 'seeded', ARGV[2])
return 1
