-- The order of transactions, by time and then by id; the reader of an element of a history; the reader of recorded
-- events. These functions are made on demand: most events need none of them, and making them costs 1 % of an event.
local function elements()
    -- Whether one transaction comes before another. Ids are compared as bytes: `<` does not do so in every locale.
    local function before(a, b)
        if a.time ~= b.time then
            return a.time < b.time
        end
        for i = 1, math.min(#a.id, #b.id) do
            local one, other = string.byte(a.id, i), string.byte(b.id, i)
            if one ~= other then
                return one < other
            end
        end
        return #a.id < #b.id
    end

    -- ISO 8601 as Unix seconds; UTC without an offset; nil for anything else.
    local function unix(text)
        local year, month, day, hour, minute, second, rest = string.match(
            type(text) == 'string' and text or '', '^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$')
        if not year then
            return nil
        end
        local fraction, zone = string.match(rest, '^(%.%d+)(.*)$')
        local sign, hours, minutes = string.match(zone or rest, '^([+-])(%d%d):?(%d?%d?)$')
        if not sign and not string.match(zone or rest, '^[Zz]?$') then
            return nil
        end
        local offset = sign and (hours * 60 + (tonumber(minutes) or 0)) * (sign == '-' and -60 or 60) or 0
        -- Days of the civil calendar, in years that begin with March, from 0000-03-01 to 1970-01-01.
        local y, m = tonumber(month) < 3 and year - 1 or tonumber(year), (month + 9) % 12
        local days = y * 365 + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
            + math.floor((153 * m + 2) / 5) + day - 719469
        return ((days * 24 + hour) * 60 + minute) * 60 + second - offset + tonumber('0' .. (fraction or ''))
    end

    -- An element as a transaction; nil without an id. A transaction whose time cannot be read has none.
    local function decode(element)
        local is_json, event = pcall(cjson.decode, element)
        event = is_json and type(event) == 'table' and event or {}
        local id, time, lat, lon = event.transaction_id, unix(event.timestamp), event.location_lat, event.location_long
        if event[1] then -- an array
            id, time, lat, lon = event[1], type(event[4]) == 'number' and event[4], event[5], event[6]
        end
        if type(id) == 'number' then -- cjson's doubles lack digits beyond 2^53
            for digits in string.gmatch(element, (event[1] and '%[' or '"transaction_id"%s*:') .. '%s*(%-?%d+)') do
                id = tonumber(digits) == id and digits or id
            end
        end
        if type(id) == 'string' then
            lat, lon = tonumber(lat), tonumber(lon)
            local placed = lat and lon and math.abs(lat) <= 90 and math.abs(lon) <= 180
            return {
                id = id, time = time, element = element,
                lat = placed and string.format('%.17g', lat), lon = placed and string.format('%.17g', lon)
            }
        end
    end

    -- The fields of a seed, and apart from them the events that it records, in order.
    local function read_seed(key)
        local stored, fields, recorded = redis.call('HGETALL', key), {}, {}
        for i = 1, #stored, 2 do
            if string.byte(stored[i], 2) ~= 58 then -- no e:…
                fields[stored[i]] = stored[i + 1]
            else
                local at, amount, lat, lon = string.match(stored[i + 1], '^([^,]+),([^,]+),([^,]+),([^,]+)$')
                recorded[#recorded + 1] = {
                    id = string.sub(stored[i], 3), record = stored[i + 1], at = at, time = tonumber(at),
                    amount = tonumber(amount), lat = tonumber(lat) and lat, lon = tonumber(lon) and lon
                }
            end
        end
        if #recorded > 1 then
            table.sort(recorded, before)
        end
        return fields, recorded
    end

    return before, decode, read_seed
end
