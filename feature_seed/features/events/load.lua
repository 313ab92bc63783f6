-- What both guards of `keep_newer` do with a seed, and how they judge a count.
local before, decode, read_seed = elements()

-- The fields of a seed, its records after the watermark in order, and how many records gold has passed. The seed is
-- `exact` if gold has every event that was dropped from the records. An entity is `loaded` up to the watermark of its
-- seed. If a load has left the entity out since, or without a seed, it is loaded up to the watermark of the store.
local function open_seed(key, watermark, store)
    local fields, later = read_seed(key)
    local left_out = fields.digest and store ~= fields.watermark and (tonumber(store) or 0) > tonumber(fields.watermark)
    fields.loaded = not left_out and fields.watermark or store
    local passed = 0
    while later[passed + 1] and later[passed + 1].time <= tonumber(watermark) do
        passed = passed + 1
    end
    if passed > 0 then
        later = {unpack(later, passed + 1)}
    end
    fields.exact = fields.forgot and tonumber(fields.forgot) <= tonumber(watermark)
    return fields, later, passed
end

-- Whether a live count stays that is greater than gold's count and the known events after it, and how many of its
-- events nobody recorded. The count stays if as many events came since the last load. A load of the same gold can tell
-- no more than the load before it.
local function judge(live, gold, later, recorded, seeded, fields, again)
    local left, surplus, unrecorded = tonumber(fields.left) or 0, live - (gold + later), 0
    if seeded and not fields.exact then -- dropped records come with a later gold, however many loads on
        unrecorded = live - (seeded + recorded + (fields.forgot and 0 or left))
    end
    local stays = surplus > 0 and (again or surplus <= unrecorded)
    local unknown = unrecorded > 0 or left > 0 or fields.forgot and not fields.exact
    return stays, stays and (again and left or surplus) or 0, stays or unknown
end

-- Write the seed: the fields of the load, name and value in turns, how many unrecorded events it `left`, and the
-- records after the watermark.
local function close_seed(key, fields, later, passed, stored, left)
    left = left > 0 and string.format('%.0f', left) or nil
    if passed == 0 and not fields.exact and fields.left == left then
        for i = 1, #stored, 2 do
            if fields[stored[i]] ~= stored[i + 1] then
                redis.call('HSET', key, unpack(stored))
                break
            end
        end
        return
    end
    local function put(name, value)
        stored[#stored + 1], stored[#stored + 2] = name, value
    end
    if left then
        put('left', left)
    end
    if fields.forgot and not fields.exact then
        put('forgot', fields.forgot)
    end
    for _, event in ipairs(later) do
        put('e:' .. event.id, event.record)
    end
    redis.call('DEL', key) -- written anew, the hash is as small as if it had never been longer
    redis.call('HSET', key, unpack(stored))
end

-- All keys of an entity end together: as many seconds after its newest row, or its newest `live` event, as its digest
-- says. If the digest `before` gave the keys an end and this one gives none, the end is taken away.
local function end_keys(digest, before, live)
    if string.find(digest, ':', 1, true) then
        local expire, newest = string.match(digest, ':(%d+):(.+)$')
        newest = live and live[1] and live[#live].time or newest
        for _, key in ipairs(KEYS) do
            redis.call('PEXPIREAT', key, string.format('%.0f', (newest + expire) * 1000))
        end
    elseif before and string.find(before, ':', 1, true) then
        for _, key in ipairs(KEYS) do
            redis.call('PERSIST', key)
        end
    end
end

-- 0 if the entity is as gold has it. Else the sum of 1 for live events, 2 for a decision about events that nobody
-- recorded, 4 for an entity that had no seed, and 8 for every record that gold has passed.
local function reply(live, decided, taken_over, passed)
    return (live and 1 or 0) + (decided and 2 or 0) + (taken_over and 4 or 0) + 8 * passed
end
