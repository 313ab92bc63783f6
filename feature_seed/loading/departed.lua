-- Look at an entity that gold no longer has. Remove it in the same step if ARGV asks for that and it has no live event.
-- Events up to the watermark are gold's to tell. Unrecorded events may show in the count alone.
--
-- KEYS: of a card history, seq, loc, last_ts, seed, seeded; of a customer stats, seed
-- ARGV: the store's watermark in Unix seconds, '1' to remove
-- Returns 'departed', 'live' or 'removed', and the key of the seed; nothing for an entity that no load has brought
local _, decode, read_seed = elements()
local is_card = #KEYS > 2
local seed = KEYS[is_card and 5 or 2]
local fields, recorded = read_seed(seed)
if not (fields.watermark and fields.count) then
    return {}
end
local watermark = math.max(tonumber(fields.watermark), tonumber(ARGV[1]))
local counted = is_card and {redis.call('GET', KEYS[2])} or redis.call('HMGET', KEYS[1], 'count')
local live = tonumber(counted[1] or '') ~= fields.count + #recorded
for _, event in ipairs(recorded) do
    live = live or event.time > watermark
end
-- A scorer that pushes and does not count pushes to one of the ends. An untrimmed list may have 200,000 elements.
for _, first in ipairs(is_card and {0, -100} or {}) do
    for _, element in ipairs(redis.call('LRANGE', KEYS[1], first, first + 99)) do
        local event = decode(element)
        live = live or not (event and event.time and event.time <= watermark)
    end
end
if live or ARGV[2] ~= '1' then
    return {live and 'live' or 'departed', seed}
end
redis.call('DEL', unpack(KEYS))
return {'removed', seed}
