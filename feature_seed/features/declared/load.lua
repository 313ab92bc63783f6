-- A declared feature of one entity becomes gold up to the watermark, as the rule of its kind says.
--
-- KEYS: its key
-- ARGV: the command that writes its kind; `unite` with what is there, `replace` it, or `keep` it; when the key expires,
--       in Unix milliseconds or ''; up to which score a zset is cut, or ''; how many fields have no value, and these; the
--       command's arguments
local key, write, rule, ends, absent = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
local now
if ends then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
    if ends <= now then
        return 0
    end
end
if rule == 'keep' and redis.call('EXISTS', key) == 1 then
    return 0
end

if absent > 0 then
    redis.call('HDEL', key, unpack(ARGV, 6, 5 + absent))
elseif rule == 'replace' and write ~= 'HSET' then
    redis.call(({SET = 'STRLEN', RPUSH = 'LLEN', ZADD = 'ZCARD'})[write], key) -- DEL would take a key of another type
    redis.call('DEL', key)
end
local later = rule == 'unite' and write == 'ZADD' -- the greater score stays: it may be a live one
for i = 6 + absent, #ARGV, 5000 do -- unpack takes some 8,000
    if later then
        redis.call(write, key, 'GT', unpack(ARGV, i, math.min(i + 4999, #ARGV)))
    else
        redis.call(write, key, unpack(ARGV, i, math.min(i + 4999, #ARGV)))
    end
end
if ARGV[4] ~= '' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[4])
end

-- A united key ends at the later of both ends.
if ends and (rule ~= 'unite' or ends > now + redis.call('PTTL', key)) then
    redis.call('PEXPIREAT', key, ARGV[3])
elseif not ends and write == 'HSET' then
    redis.call('PERSIST', key)
end
return 0
