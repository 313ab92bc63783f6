-- A customer becomes gold up to the watermark and the recorded events after it. Only the number of others is known.
--
-- KEYS: stats, seed
-- ARGV: watermark in Unix seconds, gold's count, mean and M2, the store's watermark before, the digest
local watermark, count, mean, m2 = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', unpack(KEYS)) == 0 then -- a new customer, as all are in a first load: two thirds of the time
    redis.call('HSET', KEYS[1], 'count', count, 'mean', mean, 'M2', m2)
    redis.call('HSET', KEYS[2], 'watermark', watermark, 'count', count, 'digest', ARGV[6])
    end_keys(ARGV[6])
    return 0
end
local stored = redis.call('HMGET', KEYS[1], 'count', 'mean', 'M2', 'seeded')
local live, spread = tonumber(stored[1] or ''), (tonumber(stored[2] or '') or 0 / 0) + (tonumber(stored[3] or '') or 0 / 0)
if not live or spread - spread ~= 0 then
    live = 0 -- no state that can be gone on with
end
local fields, later, passed = open_seed(KEYS[2], watermark, ARGV[5])
local seeded = tonumber(fields.count or stored[4])
local again = seeded == tonumber(count) and fields.loaded == watermark
local stays, left, decided = judge(live, count, #later, #later + passed, seeded, fields, again)
if not stays then
    if #later > 0 then
        for _, event in ipairs(later) do
            local delta = event.amount - mean
            count = count + 1
            mean = mean + delta / count
            m2 = m2 + delta * (event.amount - mean)
        end
        count, mean, m2 = string.format('%.0f', count), string.format('%.17g', mean), string.format('%.17g', m2)
    end
    if stored[1] ~= count or stored[2] ~= mean or stored[3] ~= m2 then
        redis.call('HSET', KEYS[1], 'count', count, 'mean', mean, 'M2', m2)
    end
end
if stored[4] then
    redis.call('HDEL', KEYS[1], 'seeded')
end
close_seed(KEYS[2], fields, later, passed, {'watermark', watermark, 'count', ARGV[2], 'digest', ARGV[6]}, left)
end_keys(ARGV[6], fields.digest, later)
return reply(#later > 0 or stays, decided, live > 0 and not fields.watermark and #later + passed == 0, passed)
