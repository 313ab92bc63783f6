-- Looks at some entities: which of them a load has to send, since they are not as gold and their seeds say.
--
-- KEYS: of each entity its seed, and what counts its events: seq, or stats
-- ARGV: 'HASH' for stats, of each entity gold's digest and count and a hash of its id, the watermark in Unix seconds
-- Returns how many the store knows, rows by their seeds, how many are new, differ, are smaller than their seeds say, and
-- by how many rows; a key of one that is new or differs; key, rows and gold's rows of the one that lost most; then the
-- hashes of those to be sent: that are new, differ, hold live events, have another count than their seed, or are ahead.
local known, rows, new, changed, shrunk, lost, example, worst, most, hashes = 0, 0, 0, 0, 0, 0, '', {'', 0, 0}, 0, {}
local position, call, ahead = -1, redis.pcall, {}

local function is_ahead(watermark) -- of the load; most seeds have the same
    if ahead[watermark] == nil then
        ahead[watermark] = (tonumber(watermark) or math.huge) > tonumber(ARGV[3])
    end
    return ahead[watermark]
end

local function look_closer(stored, live, key, digest, count, hash)
    -- An entity of which nothing is left at its end is as gold has it.
    if not live and #stored == 0 and string.find(digest, ':', 1, true) then
        local expire, newest = string.match(digest, ':(%d+):(.+)$')
        local now = call('TIME')
        if newest + expire <= now[1] + now[2] / 1e6 then
            known, rows = known + 1, rows + count
            return
        end
    end
    local fields = {}
    for i = 1, #stored, 2 do
        fields[stored[i]] = stored[i + 1]
    end
    local same, seeded = fields.digest == digest and fields.count == count, tonumber(fields.count)
    if live or seeded then
        known, rows = known + 1, rows + (seeded or 0)
    end
    if not same then
        new, changed = new + ((live or seeded) and 0 or 1), changed + ((live or seeded) and 1 or 0)
        example = example == '' and key or example
    end
    -- A seed of three fields, watermark, count and digest, has no record, and nothing left or forgotten.
    if not same or live ~= count or #stored ~= 6 or is_ahead(fields.watermark or '') then
        hashes[#hashes + 1] = tonumber(hash)
    end
    local less = (seeded or 0) - tonumber(count)
    if less > 0 then
        shrunk, lost = shrunk + 1, lost + less
        if less > most then
            most, worst = less, {key, seeded, tonumber(count)}
        end
    end
end

for digest, count, hash in string.gmatch(ARGV[2], '(%S+) (%S+) (%S+)') do
    position = position + 2
    -- A key of another type is for the load to complain of, which says what to do.
    local stored, key = call('HGETALL', KEYS[position]), KEYS[position + 1]
    local live = ARGV[1] == 'HASH' and call('HMGET', key, 'count') or call('GET', key)
    if type(live) == 'table' then
        live = live[1] or live.err
    end
    -- The seed as it is written, without a table of its fields: a fifth of the time.
    if live == count and stored[4] == count and stored[6] == digest and #stored == 6 and not is_ahead(stored[2]) then
        known, rows = known + 1, rows + count
    else
        look_closer(stored, live, KEYS[position], digest, count, hash)
    end
end
return {known, rows, new, changed, shrunk, lost, example, worst[1], worst[2], worst[3], unpack(hashes)}
