-- A card: its list and its count, where and when it was last used. Every event moves them on together, so all are decided
-- in one step: there is no moment between them for an event to fall into.
--
-- KEYS: history, seq, seeded, loc, last_ts
-- ARGV: history length, '1' for newest first, watermark in Unix ms, '1' for a first load, gold's count of the card, its
--       last_ts, its lat and lon ('' where gold has no location), then gold's newest transactions in stored order
-- Returns 1 when the card is as gold has it, 0 when live events are kept beside gold's.
--
-- Invariant: `seeded` is gold's count when it was last loaded, and seq - seeded how many events the card had that this
-- gold did not hold. One event is one element and one INCR: these are the newest elements of the list. What must come
-- out is gold, and after it the live events that it does not hold, in the order in which they arrived.

-- Where and when, of a card that is `touched` by events that gold does not hold, or is not: which of both is later is told
-- by time alone. Read before anything is written, so that a key of another type leaves the card as it was.
local live_ts = tonumber(redis.call('GET', KEYS[5]))
local live_lat = redis.call('HMGET', KEYS[4], 'lat')[1]
local function place(touched)
    local located = ARGV[7] ~= ''
    touched = touched and live_ts
    -- At the same time the live event is the later one, since gold does not hold it.
    if touched and live_ts >= tonumber(ARGV[6]) then
        -- Live events may all be without coordinates: then gold's are the latest.
        if located and not live_lat then
            redis.call('HSET', KEYS[4], 'lat', ARGV[7], 'lon', ARGV[8])
        end
        return
    end
    redis.call('SET', KEYS[5], ARGV[6])
    if located then
        redis.call('HSET', KEYS[4], 'lat', ARGV[7], 'lon', ARGV[8])
    elseif not touched then
        redis.call('DEL', KEYS[4])
    end
end

local count = tonumber(ARGV[5])
local stored = redis.call('LRANGE', KEYS[1], 0, -1)
local live = tonumber(redis.call('GET', KEYS[2]))
if #stored == 0 and not live then
    redis.call('RPUSH', KEYS[1], unpack(ARGV, 9))
    redis.call('MSET', KEYS[2], ARGV[5], KEYS[3], ARGV[5])
    place(false)
    return 1
end

live = live or 0
local marker = tonumber(redis.call('GET', KEYS[3]))
local seeded, first_load = marker, ARGV[4] == '1'
if seeded and live < seeded then
    -- The count began anew (its key was evicted, or deleted): nothing in it is a seed's.
    seeded, first_load = nil, first_load or seeded == count
end
local unchanged = seeded == count
local new = live - (seeded or 0)

local same = #stored == #ARGV - 8
for i = 1, #stored do
    same = same and stored[i] == ARGV[i + 8]
end
if same and unchanged and new == 0 then
    place(false)
    return 1
end

local function oldest_first(list, first)
    local ordered = {}
    for i = first, #list do
        ordered[i - first + 1] = list[ARGV[2] == '1' and #list + first - i or i]
    end
    return ordered
end

-- ISO 8601 as Unix milliseconds, in which gold is stored; UTC without an offset; nil for anything else.
local function milliseconds(text)
    local year, month, day, hour, minute, second, rest = string.match(
        type(text) == 'string' and text or '', '^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$')
    if not year then
        return nil
    end
    local fraction, zone = string.match(rest, '^%.(%d+)(.*)$')
    local sign, hours, minutes = string.match(zone or rest, '^([+-])(%d%d):?(%d?%d?)$')
    if not sign and not string.match(zone or rest, '^[Zz]?$') then
        return nil
    end
    local offset = sign and ((tonumber(hours) * 60 + (tonumber(minutes) or 0)) * (sign == '-' and -60 or 60)) or 0
    -- Days of the civil calendar, in years that begin with March, from 0000-03-01 to 1970-01-01.
    local y, m = tonumber(year), (tonumber(month) + 9) % 12
    y = m > 9 and y - 1 or y
    local days = y * 365 + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
        + math.floor((153 * m + 2) / 5) + tonumber(day) - 1 - 719468
    local seconds = ((days * 24 + tonumber(hour)) * 60 + tonumber(minute)) * 60 + tonumber(second) - offset
    return seconds * 1000 + tonumber(string.sub((fraction or '') .. '000', 1, 3))
end

-- The id and time of an element. What is no transaction has neither: no reader of the contract could read it, and it is
-- dropped. A time that cannot be read is nil: such an element is as new as its place in the list.
local function decode(element)
    local is_json, event = pcall(cjson.decode, element)
    local id = is_json and type(event) == 'table' and event.transaction_id
    if type(id) == 'number' then
        id = string.format('%.0f', id) -- as gold writes integers
    end
    if type(id) == 'string' then
        return id, milliseconds(event.timestamp)
    end
end

local gold, list = oldest_first(ARGV, 9), oldest_first(stored, 1)
local texts = {}
for _, element in ipairs(gold) do
    texts[element] = true
end

local ids
local function in_gold(id)
    if not ids then
        ids = {}
        for _, element in ipairs(gold) do
            ids[decode(element)] = true
        end
    end
    return ids[id]
end

-- Whether gold would list an event of this time and id, had it one: it lists its newest by (time, id). Ids are compared
-- as bytes, strings in Lua by the server's locale.
local oldest_id, oldest_time
local function listed(time, id)
    if not oldest_id then
        oldest_id, oldest_time = decode(gold[1])
    end
    if time ~= oldest_time then
        return time > oldest_time
    end
    for i = 1, math.min(#id, #oldest_id) do
        if string.byte(id, i) ~= string.byte(oldest_id, i) then
            return string.byte(id, i) > string.byte(oldest_id, i)
        end
    end
    return #id > #oldest_id
end

local whole = count <= #gold
local kept, doubtful = 0, 0
for i, element in ipairs(list) do
    -- By count, or newer than any gold that was ever loaded: a scorer that pushes and counts in two commands may be
    -- between them.
    local counted = i > #list - new
    if not texts[element] then
        local id, time = decode(element)
        if id and (counted or (time and time > tonumber(ARGV[3]))) and not in_gold(id) then
            -- A gold that has not changed since holds none of them, however late they are. Of another one, events older
            -- than all that it lists are taken to be in it.
            if (counted and unchanged) or whole or not time or listed(time, id) then
                gold[#gold + 1] = element
                kept = kept + 1
            elseif counted then
                doubtful = doubtful + 1
            end
        elseif counted and not id then
            doubtful = doubtful + 1
        end
    end
end

local total
local missing = math.min(kept, new)
if unchanged then
    total = live
elseif new <= #list and doubtful == 0 then
    total = count + missing -- every live event is in the list, and known to be in gold or not: exact
elseif first_load and not seeded and kept >= math.min(new, #list) then
    total = count + live -- no live event that can be seen is in gold, so none is: the stream began after the watermark
else
    -- What a correction took out of gold goes; what the scorer missed comes; else the live count stands.
    total = math.max(live - math.max(0, (seeded or 0) - count), count + missing)
end

local first = math.max(1, #gold - tonumber(ARGV[1]) + 1)
local merged = {}
for i = first, #gold do
    merged[i - first + 1] = gold[ARGV[2] == '1' and #gold + first - i or i]
end
same = #merged == #stored
for i = 1, #merged do
    same = same and merged[i] == stored[i]
end
if not same then
    -- Pushed before the old is trimmed away: a script whose first write only frees memory may go past maxmemory.
    redis.call('RPUSH', KEYS[1], unpack(merged))
    redis.call('LTRIM', KEYS[1], -#merged, -1)
end
if total ~= live or count ~= marker then
    redis.call('MSET', KEYS[2], string.format('%.0f', total), KEYS[3], ARGV[5])
end
place(total ~= count)
return (kept == 0 and total == count) and 1 or 0
