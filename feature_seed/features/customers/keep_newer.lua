-- A customer becomes gold up to the watermark and, after it, the recorded events. Of others their number alone is known.
--
-- KEYS: stats, seed
-- ARGV: watermark in Unix seconds, gold's count, mean and M2, the watermark of what `seeded` is of
local watermark, gold = ARGV[1], tonumber(ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'count', 'mean', 'M2', 'seeded')
local fields, later, passed = open_seed(KEYS[2], watermark)

local function finite(text)
    local value = tonumber(text)
    return value and value - value == 0
end
local live = finite(stored[1]) and finite(stored[2]) and finite(stored[3]) and tonumber(stored[1]) or 0

local seeded = tonumber(fields.count or stored[4])
local again = seeded == gold and (fields.watermark or ARGV[5]) == watermark
local stays, left, decided = judge(live, gold, #later, #later + passed, seeded, fields, again)
if not stays then
    local count, mean, m2 = gold, tonumber(ARGV[3]), tonumber(ARGV[4])
    for _, event in ipairs(later) do
        local delta = event.amount - mean
        count = count + 1
        mean = mean + delta / count
        m2 = m2 + delta * (event.amount - mean)
    end
    local moved = #later > 0
    redis.call('HSET', KEYS[1], 'count', string.format('%.0f', count),
        'mean', moved and string.format('%.17g', mean) or ARGV[3], 'M2', moved and string.format('%.17g', m2) or ARGV[4])
end
if stored[4] then
    redis.call('HDEL', KEYS[1], 'seeded')
end
close_seed(KEYS[2], fields, later, passed, watermark, ARGV[2], left)
return reply(#later > 0 or stays, decided, live > 0 and not fields.watermark and #later + passed == 0, passed)
