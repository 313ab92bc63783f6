-- A card becomes gold up to the watermark and, after it, the recorded events and the other events of its list.
--
-- KEYS: history, seq, seed, loc, last_ts, seeded (a key that the version before this one has left)
-- ARGV: history length, '1' for newest first, watermark in Unix seconds, gold's count of the card, its last_ts, its lat
--       and lon ('' where gold has no place), the store's watermark before, the digest, then gold's newest
--       transactions in stored order
local newest_first, watermark, size, stored, oldest = ARGV[2] == '1', ARGV[3], tonumber(ARGV[1]), nil, nil

if redis.call('EXISTS', unpack(KEYS)) == 0 then -- a new card, as all are in a first load: two thirds of the time
    redis.call('RPUSH', KEYS[1], unpack(ARGV, 10))
    redis.call('MSET', KEYS[2], ARGV[4], KEYS[5], ARGV[5])
    if ARGV[6] ~= '' then
        redis.call('HSET', KEYS[4], 'lat', ARGV[6], 'lon', ARGV[7])
    end
    redis.call('HSET', KEYS[3], 'watermark', watermark, 'count', ARGV[4], 'digest', ARGV[9])
    end_keys(ARGV[9])
    return 0
end

-- Everything is read before the first write, so that a key of another type leaves the card as it was. Twice the length
-- of the list is read first. If nobody trims the list, more is read until some element is not after the watermark.
repeat
    size = 2 * size
    stored = redis.call('LRANGE', KEYS[1], newest_first and 0 or -size, newest_first and size - 1 or -1)
    oldest = #stored == size and decode(stored[newest_first and size or 1])
until not (oldest and oldest.time and oldest.time > tonumber(watermark))
local seq, last_ts, loc = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[5]), redis.call('HMGET', KEYS[4], 'lat', 'lon')
local fields, live, passed = open_seed(KEYS[3], watermark, ARGV[8])
local recorded, unrecorded = live, 0
local seeded = not fields.watermark and redis.call('GET', KEYS[6])

local same = #stored == #ARGV - 9
for i = 1, #stored do
    same = same and stored[i] == ARGV[i + 9]
end
local list = not same and {unpack(ARGV, 10)}

-- The time of an element in the form of a load, as text, which sorts like time. This takes a fifth of decode's time.
local function written_time(element)
    local _, start = string.find(element, '"timestamp":"', 1, true)
    local form = '^([%dT:-]+%.%d%d%d)%+00:00","location_lat":[%d.nul-]+,"location_long":[%d.nul-]+}$'
    return start and string.match(element, form, start + 1)
end

local function ids_of(loaded)
    local ids = {}
    for _, element in ipairs(loaded) do
        ids[decode(element).id] = true
    end
    return ids
end

if not same and #stored > 0 then
    -- The elements of recorded events, and unrecorded ones after gold: after this gold and the one before.
    live = {unpack(recorded)}
    local known, now, in_gold = {}, redis.call('TIME')[1], nil
    local after = math.max(tonumber(watermark), tonumber((fields.watermark or seeded) and fields.loaded) or -math.huge)
    for _, element in ipairs(list) do
        known[element] = true
    end
    for _, event in ipairs(live) do
        known[event.id] = event
    end
    -- Without records, only elements later than gold's newest can matter: most others have left gold's list.
    local newest = #live == 0 and written_time(list[newest_first and 1 or #list])
    for _, element in ipairs(stored) do
        local early = newest and not known[element] and written_time(element)
        local event = not known[element] and not (early and early <= newest) and decode(element)
        local recorded_as = event and known[event.id]
        if type(recorded_as) == 'table' then
            recorded_as.element = element
        elseif event and event.time and event.time > after and event.time <= now + 3600 then
            in_gold = in_gold or ids_of(list) -- made only here: made for every changed card it took a third of the load
            if not in_gold[event.id] then
                known[event.id], live[#live + 1], unrecorded = event, event, unrecorded + 1
            end
        end
    end
    table.sort(live, before)
end

if #live > 0 and list then -- gold's list and what came after it, cut to its length
    local newest, count = {}, 0
    for i = #live, 1, -1 do
        newest[#newest + 1] = live[i].element
    end
    for i = 1, #list do
        newest[#newest + 1] = list[newest_first and i or #list + 1 - i]
    end
    count, list, same = math.min(#newest, tonumber(ARGV[1])), {}, true
    for i = 1, count do
        list[newest_first and i or count + 1 - i] = newest[i]
    end
    for i = 1, math.max(#list, #stored) do
        same = same and list[i] == stored[i]
    end
end

local at, lat, lon = ARGV[5], ARGV[6], ARGV[7]
for _, event in ipairs(live) do
    at, lat, lon = event.at or tonumber(last_ts or '') == event.time and last_ts, event.lat or lat, event.lon or lon
    at = at or string.gsub(string.format('%.6f', event.time), '%.?0+$', '')
end
local known, dropped = tonumber(fields.count or seeded or ''), fields.forgot and not fields.exact
local again, stays, beyond = known == tonumber(ARGV[4]) and fields.loaded == watermark, false, 0
if dropped or unrecorded > 0 and #live >= tonumber(ARGV[1]) then -- there were more than the records and list have
    stays, beyond = judge(tonumber(seq) or 0, ARGV[4], #live, #recorded + passed, known, fields, again)
end
local left = again and tonumber(fields.left) or not again and unrecorded + beyond or 0
local count = stays and seq or #live == 0 and ARGV[4] or string.format('%.0f', ARGV[4] + #live)

if not same then
    -- Push before trimming: a script whose first write only frees memory may go past maxmemory.
    redis.call('RPUSH', KEYS[1], unpack(list))
    if #stored > 0 then
        redis.call('LTRIM', KEYS[1], -#list, -1)
    end
end
if seq ~= count or last_ts ~= at then
    redis.call('MSET', KEYS[2], count, KEYS[5], at)
end
if lat == '' then
    redis.call('DEL', KEYS[4])
elseif (loc[1] ~= lat or loc[2] ~= lon)
    and (tonumber(loc[1] or '') ~= tonumber(lat) or tonumber(loc[2] or '') ~= tonumber(lon)) then
    redis.call('HSET', KEYS[4], 'lat', lat, 'lon', lon)
end
if seeded then
    redis.call('DEL', KEYS[6])
end
close_seed(KEYS[3], fields, recorded, passed, {'watermark', watermark, 'count', ARGV[4], 'digest', ARGV[9]}, left)
end_keys(ARGV[9], fields.digest, live)
local taken_over = seq and not fields.watermark and #recorded + passed == 0
return reply(#live > 0, unrecorded > 0 or dropped, taken_over, passed)
