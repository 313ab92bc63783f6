-- A card becomes gold up to the watermark and, after it, the events that are recorded and those that its list has besides.
--
-- KEYS: history, seq, seed, loc, last_ts, seeded (which the version before this one has left)
-- ARGV: history length, '1' for newest first, watermark in Unix seconds, gold's count of the card, its last_ts, its lat
--       and lon ('' where gold has no place), the watermark of what `seeded` is of, then gold's newest transactions in
--       stored order
local length, newest_first, watermark, gold = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3], {unpack(ARGV, 9)}

-- The newest elements: as many as two lists have and, where nobody trims it, on while all of them are after the watermark.
local function read_list()
    local size, found, oldest = length, nil, nil
    repeat
        size = 2 * size
        found = redis.call('LRANGE', KEYS[1], newest_first and 0 or -size, newest_first and size - 1 or -1)
        oldest = #found == size and decode(found[newest_first and size or 1])
    until not (oldest and oldest.time and oldest.time > tonumber(watermark))
    return found
end

-- Gives recorded events their elements, and adds to them what came after gold, this one and the one before, and nobody
-- recorded.
local function add_unrecorded(live, stored, before_this)
    local known, now, unrecorded = {}, redis.call('TIME')[1], 0
    local after = math.max(tonumber(watermark), tonumber(before_this) or -math.huge)
    for _, element in ipairs(gold) do
        known[element], known[decode(element).id] = true, true
    end
    for _, event in ipairs(live) do
        known[event.id] = event
    end
    for _, element in ipairs(stored) do
        local event = not known[element] and decode(element)
        local same = event and known[event.id]
        if type(same) == 'table' then
            same.element = element
        elseif event and not same and event.time and event.time > after and event.time <= now + 3600 then
            known[event.id], live[#live + 1], unrecorded = event, event, unrecorded + 1
        end
    end
    table.sort(live, before)
    return unrecorded
end

-- Gold's list and what came after it, cut to its length, in stored order.
local function merged(live)
    local newest, list = {}, {}
    for i = #live, 1, -1 do
        newest[#newest + 1] = live[i].element
    end
    for i = 1, #gold do
        newest[#newest + 1] = gold[newest_first and i or #gold + 1 - i]
    end
    local count = math.min(#newest, length)
    for i = 1, count do
        list[newest_first and i or count + 1 - i] = newest[i]
    end
    return list
end

-- All is read before the first write, so that a key of another type leaves the card as it was.
local stored, seq, last_ts = read_list(), redis.call('GET', KEYS[2]), redis.call('GET', KEYS[5])
local loc = redis.call('HMGET', KEYS[4], 'lat', 'lon')
local fields, live, passed = open_seed(KEYS[3], watermark)
local texts, recorded = table.concat(stored, '\n'), {unpack(live)}
local seeded = not fields.watermark and redis.call('GET', KEYS[6])
local unrecorded = texts ~= table.concat(gold, '\n') and #stored > 0
    and add_unrecorded(live, stored, fields.watermark or seeded and ARGV[8]) or 0
local list = #live > 0 and merged(live) or gold
local at, lat, lon = ARGV[5], ARGV[6], ARGV[7]
for _, event in ipairs(live) do
    at, lat, lon = event.at or tonumber(last_ts or '') == event.time and last_ts, event.lat or lat, event.lon or lon
    at = at or string.gsub(string.format('%.6f', event.time), '%.?0+$', '')
end
local again, stays, left = fields.watermark == watermark and fields.count == ARGV[4], false, unrecorded
if again then
    left = tonumber(fields.left) or 0
end
if fields.forgot and not fields.exact then -- not all that was dropped is in gold, or in the list
    stays, left = judge(tonumber(seq) or 0, ARGV[4], #live, #recorded + passed, tonumber(fields.count), fields, again)
end
local count = stays and seq or string.format('%.0f', ARGV[4] + #live)

if texts ~= table.concat(list, '\n') then
    -- Pushed before the old is trimmed away: a script whose first write only frees memory may go past maxmemory.
    redis.call('RPUSH', KEYS[1], unpack(list))
    redis.call('LTRIM', KEYS[1], -#list, -1)
end
if seq ~= count or last_ts ~= at then
    redis.call('MSET', KEYS[2], count, KEYS[5], at)
end
if lat == '' then
    redis.call('DEL', KEYS[4])
elseif tonumber(loc[1] or '') ~= tonumber(lat) or tonumber(loc[2] or '') ~= tonumber(lon) then
    redis.call('HSET', KEYS[4], 'lat', lat, 'lon', lon)
end
if seeded then
    redis.call('DEL', KEYS[6])
end
close_seed(KEYS[3], fields, recorded, passed, watermark, ARGV[4], left)
local taken_over = not fields.watermark and seq and #recorded + passed == 0
return reply(#live > 0, unrecorded > 0 or fields.forgot and not fields.exact, taken_over, passed)
