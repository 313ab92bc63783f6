-- A declared feature of one entity becomes gold up to the watermark, as the rule of its kind says.
--
-- KEYS: its key
-- ARGV: the command that writes its kind; `unite` with what is there, `replace` it, or `keep` it; when the key expires,
--       in Unix milliseconds or ''; up to which score a zset is cut, or ''; how many fields have no value, and these; the
--       command's arguments
local write, rule, ends, absent = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
local sizes = {HSET = 'HLEN', SET = 'STRLEN', RPUSH = 'LLEN', ZADD = 'ZCARD', SADD = 'SCARD'}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ends and ends <= now or rule == 'keep' and redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end

redis.call(sizes[write], KEYS[1]) -- a key of another type is an error before the first write
if absent > 0 then
    redis.call('HDEL', KEYS[1], unpack(ARGV, 6, 5 + absent))
elseif rule ~= 'unite' and write ~= 'HSET' then
    redis.call('DEL', KEYS[1])
end
local united = rule == 'unite' and write == 'ZADD' -- a live score may be later
for i = 6 + absent, #ARGV, 5000 do -- unpack takes some 8,000
    if united then
        redis.call(write, KEYS[1], 'GT', unpack(ARGV, i, math.min(i + 4999, #ARGV)))
    else
        redis.call(write, KEYS[1], unpack(ARGV, i, math.min(i + 4999, #ARGV)))
    end
end
if ARGV[4] ~= '' then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[4])
end
-- What is united ends when the later of both does.
if ends and (rule ~= 'unite' or ends > now + redis.call('PTTL', KEYS[1])) then
    redis.call('PEXPIREAT', KEYS[1], ARGV[3])
elseif not ends and rule ~= 'unite' then
    redis.call('PERSIST', KEYS[1])
end
return 0
