-- What both guards of `keep_newer` do with a seed, and how they judge a count.

-- The fields of a seed, the records after the watermark, in order, and how many of them gold has passed. Of the fields,
-- `forgot` is left alone where gold has all that was dropped.
local function open_seed(key, watermark)
    local fields, recorded = read_seed(key)
    local later = {}
    for _, event in ipairs(recorded) do
        if event.time > tonumber(watermark) then
            later[#later + 1] = event
        end
    end
    fields.exact = fields.forgot and tonumber(fields.forgot) <= tonumber(watermark)
    return fields, later, #recorded - #later
end

-- Whether a live count stays that is beyond gold and what is known to be after it, and how many events it has then that
-- nobody recorded. It stays where so many came since the last load. A load of the same gold can tell no more than the last.
local function judge(live, gold, later, recorded, seeded, fields, again)
    local left, surplus, unrecorded = tonumber(fields.left) or 0, live - (gold + later), 0
    if seeded and not fields.exact then -- what was dropped from the records comes with a later gold, however many loads on
        unrecorded = live - (seeded + recorded + (fields.forgot and 0 or left))
    end
    local stays = surplus > 0 and (again or surplus <= unrecorded)
    local unknown = unrecorded > 0 or left > 0 or fields.forgot and not fields.exact
    return stays, stays and (again and left or surplus) or 0, stays or unknown
end

-- Leaves what the load was of, how many events it `left` that nobody recorded, and the records after the watermark.
local function close_seed(key, fields, later, passed, watermark, count, left)
    local now, stored, same = {watermark = watermark, count = count}, {}, passed == 0
    now.left = left > 0 and string.format('%.0f', left) or nil
    now.forgot = not fields.exact and fields.forgot or nil
    for _, name in ipairs({'watermark', 'count', 'left', 'forgot'}) do
        same = same and now[name] == fields[name]
        stored[#stored + 1] = now[name] and name
        stored[#stored + 1] = now[name]
    end
    if not same then
        for _, event in ipairs(later) do
            stored[#stored + 1] = 'e:' .. event.id
            stored[#stored + 1] = event.record
        end
        if passed > 0 or fields.left or fields.forgot then
            redis.call('DEL', key) -- written anew, it is as small as one that never was longer
        end
        redis.call('HSET', key, unpack(stored))
    end
end

-- 0 where the entity is as gold has it; else the sum of 1 for live events, 2 for a decision about events that nobody
-- recorded, 4 for an entity that had no seed, and 8 for every record that gold has passed.
local function reply(live, decided, taken_over, passed)
    return (live and 1 or 0) + (decided and 2 or 0) + (taken_over and 4 or 0) + 8 * passed
end
