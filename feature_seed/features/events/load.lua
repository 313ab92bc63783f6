-- What both guards of `keep_newer` do with a seed.

-- Its fields, the records after the watermark, in order, and how many of them gold has passed.
local function open_seed(key, watermark)
    local fields, recorded = read_seed(key)
    local later = {}
    for _, event in ipairs(recorded) do
        if event.time > tonumber(watermark) then
            later[#later + 1] = event
        end
    end
    return fields, later, #recorded - #later
end

-- Leaves what the load was of, how many events it `left` that nobody recorded, and the records after the watermark.
local function close_seed(key, fields, later, passed, watermark, count, left)
    local now, stored, same = {watermark = watermark, count = count}, {}, passed == 0
    now.left = left > 0 and string.format('%.0f', left) or nil
    now.forgot = fields.forgot and tonumber(fields.forgot) > tonumber(watermark) and fields.forgot or nil
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
