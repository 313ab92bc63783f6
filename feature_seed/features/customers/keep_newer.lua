-- A customer becomes gold up to the watermark and, after it, the events that are recorded. Of others only counts are known.
--
-- KEYS: stats, seed
-- ARGV: watermark in Unix seconds, gold's count, mean and M2, the watermark of what `seeded` is of
local watermark, gold = ARGV[1], tonumber(ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'count', 'mean', 'M2', 'seeded')
local fields, later, passed = open_seed(KEYS[2], watermark)
local seeded, left = tonumber(fields.count or stored[4]), tonumber(fields.left) or 0
local forgotten = fields.forgot and tonumber(fields.forgot) > tonumber(watermark)

local function finite(text)
    local value = tonumber(text)
    return value and value - value == 0
end
local live = finite(stored[1]) and finite(stored[2]) and finite(stored[3]) and tonumber(stored[1]) or 0

-- What nobody recorded since the last load, and what the state has beyond gold and the records. The first explains the
-- second, or gold is right; a load of the same gold again can tell no more than the one before it.
local unrecorded = seeded and (forgotten or not fields.forgot) and live - (seeded + left + #later + passed) or 0
local surplus = live - (gold + #later)
local again = seeded == gold and (fields.watermark or ARGV[5]) == watermark
local stays = surplus > 0 and (again or surplus <= unrecorded)
if not stays then
    local count, mean, m2 = gold, tonumber(ARGV[3]), tonumber(ARGV[4])
    for _, event in ipairs(later) do
        local delta = event.amount - mean
        count = count + 1
        mean = mean + delta / count
        m2 = m2 + delta * (event.amount - mean)
    end
    redis.call('HSET', KEYS[1], 'count', string.format('%.0f', count), 'mean', #later > 0 and
        string.format('%.17g', mean) or ARGV[3], 'M2', #later > 0 and string.format('%.17g', m2) or ARGV[4])
end
if stored[4] then
    redis.call('HDEL', KEYS[1], 'seeded')
end
close_seed(KEYS[2], fields, later, passed, watermark, ARGV[2], stays and (again and left or surplus) or 0)
return reply(#later > 0 or stays, stays or left > 0 or unrecorded > 0, live > 0 and not fields.watermark and #later == 0, passed)
