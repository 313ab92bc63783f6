-- One event, applied to a card, a customer or both in one step, and to each of them once.
--
-- KEYS: of the card history, loc, last_ts, seq, seed; of the customer stats, seed; the card's first when both are given
-- ARGV: element, Unix seconds, amount, history length, '1' for newest first, transaction id, the store's watermark in
--       Unix seconds or '', '1' to record the event, then latitude and longitude when known
-- Returns 'applied', 'duplicate' or 'in gold' for each entity. What cannot be an event is an error and changes nothing.
local time, amount, id, lat, lon = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[6], ARGV[9], ARGV[10]
if not (time and amount and id and id ~= '') then
    return redis.error_reply('REFUSED an event needs a transaction id, a time in Unix seconds and an amount')
elseif not (amount <= 1e100 and amount >= -1e100 and time >= -2208988800) then
    return redis.error_reply('REFUSED gold holds no such amount, or no time before 1900: ' .. ARGV[3] .. ', ' .. ARGV[2])
elseif time > redis.call('TIME')[1] + 3600 then
    return redis.error_reply('REFUSED the time is over an hour ahead of the clock of Redis: ' .. ARGV[2])
end
local north, east = tonumber(lat), tonumber(lon)
if not (north and east and north <= 90 and north >= -90 and east <= 180 and east >= -180) then
    lat, lon = '-', '-' -- unknown, as gold has it
end

-- Everything is read before the first write: an event that cannot be applied fails before anything has changed.
local card, customer, records, field = #KEYS ~= 2, #KEYS ~= 5, ARGV[8] == '1', 'e:' .. id
local watermark, answers, digests = tonumber(ARGV[7]) or -math.huge, {}, {}
local last_ts, placed, count, mean, m2
for seed = card and 5 or 2, #KEYS, 2 do
    local known = redis.call('HMGET', KEYS[seed], 'watermark', 'forgot', field, 'digest')
    digests[#digests + 1] = known[4]
    if time <= watermark or (known[1] and time <= tonumber(known[1])) then
        answers[#answers + 1] = 'in gold'
    elseif known[3] or (known[2] and time <= tonumber(known[2])) then
        answers[#answers + 1] = 'duplicate'
    else
        answers[#answers + 1] = 'applied'
    end
end
if card then
    redis.call('LLEN', KEYS[1])
    placed, last_ts = redis.call('HGET', KEYS[2], 'lat'), tonumber(redis.call('GET', KEYS[3]))
end
if customer then
    local stats = redis.call('HMGET', KEYS[#KEYS - 1], 'count', 'mean', 'M2')
    local delta = amount - (stats[2] or 0)
    count = (stats[1] or 0) + 1
    mean = (stats[2] or 0) + delta / count
    m2 = (stats[3] or 0) + delta * (amount - mean)
end

-- From some 500 records on, the older half goes in one step. Records 7 days older than the newest go too.
local function forget(seed)
    local _, _, read_seed = elements()
    local _, recorded = read_seed(seed)
    local half, gone = #recorded > 450 and #recorded / 2 or 0, {}
    while #gone < half or recorded[#gone + 1].time < recorded[#recorded].time - 604800 do
        gone[#gone + 1] = 'e:' .. recorded[#gone + 1].id
    end
    if #gone > 0 then
        redis.call('HSET', seed, 'forgot', recorded[#gone].at)
        redis.call('HDEL', seed, unpack(gone))
    end
end

-- All keys of an entity end together, as many seconds after its newest event as a load has written into its digest.
-- Only this end says when a customer's newest event was: an event that comes late leaves the end as it is.
local function renew(first, last, digest, newest)
    if digest and string.find(digest, ':', 1, true) then
        local ends, now = (newest or time) + string.match(digest, ':(%d+):'), redis.call('TIME')
        if newest or ends > now[1] + now[2] / 1e6 + redis.call('PTTL', KEYS[last]) / 1e3 then
            for i = first, last do
                redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', ends * 1000))
            end
        end
    end
end

if card and answers[1] == 'applied' then
    local seq, newest_first, located = redis.call('INCR', KEYS[4]), ARGV[5] == '1', false
    local first, last = newest_first and 0 or -ARGV[4], newest_first and ARGV[4] - 1 or -1
    if not last_ts or time > last_ts then
        redis.call(newest_first and 'LPUSH' or 'RPUSH', KEYS[1], ARGV[1])
        redis.call('SET', KEYS[3], ARGV[2])
    else
        -- The event comes late. It goes where it belongs by time and id, and moves no place that a later event has set.
        local before, decode, read_seed = elements()
        local this, stored, pivot = {id = id, time = time}, redis.call('LRANGE', KEYS[1], first, last), nil
        for i = 1, #stored do
            local element = stored[newest_first and i or #stored + 1 - i]
            local other = decode(element)
            if not (other and other.time and before(this, other)) then
                pivot = element
                break
            end
            located = located or other.lat
        end
        if pivot then
            redis.call('LINSERT', KEYS[1], newest_first and 'BEFORE' or 'AFTER', pivot, ARGV[1])
        else
            if #stored < tonumber(ARGV[4]) then
                redis.call(newest_first and 'RPUSH' or 'LPUSH', KEYS[1], ARGV[1])
            end
            local _, recorded = read_seed(KEYS[5])
            located = located or not records and placed
            for _, other in ipairs(recorded) do
                located = located or other.lat and before(this, other)
            end
        end
    end
    redis.call('LTRIM', KEYS[1], first, last)
    if lat ~= '-' and not located then
        redis.call('HSET', KEYS[2], 'lat', lat, 'lon', lon)
    end
    if records then
        redis.call('HSET', KEYS[5], field, ARGV[2] .. ',' .. ARGV[3] .. ',' .. lat .. ',' .. lon)
        if seq % 50 == 0 then
            forget(KEYS[5])
        end
    end
    renew(1, 5, digests[1], math.max(time, last_ts or time))
end
if customer and answers[#answers] == 'applied' then
    redis.call('HSET', KEYS[#KEYS - 1], 'count', string.format('%.0f', count),
        'mean', string.format('%.17g', mean), 'M2', string.format('%.17g', m2))
    if records then
        redis.call('HSET', KEYS[#KEYS], field, ARGV[2] .. ',' .. ARGV[3] .. ',-,-')
        if count % 50 == 0 then
            forget(KEYS[#KEYS])
        end
    end
    renew(#KEYS - 1, #KEYS, digests[#digests])
end
return answers
