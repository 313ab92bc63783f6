-- MULTI, DEL, HDEL, HSET, HSET, where customers expire PEXPIREAT of each key, EXEC: the stats are gold's, and the seed
-- comes without a live event. HDEL takes what the version before has left, and with all fields the end of the key; DEL
-- would take the key of another program.
SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS stats_key,
    format({customer_seed:String}, tagged(customer_id)) AS seed_key,
    concat(stats_key, ', ', seed_key) AS keys,
    toString(toInt64(round(1000 * (toFloat64(last_ts) + {expire:UInt64})))) AS end,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        '*2\r\n$3\r\nDEL\r\n', bulk(seed_key),
        '*6\r\n$4\r\nHDEL\r\n', bulk(stats_key), '$6\r\nseeded\r\n$5\r\ncount\r\n$4\r\nmean\r\n$2\r\nM2\r\n',
        '*8\r\n$4\r\nHSET\r\n', bulk(stats_key), '$5\r\ncount\r\n', bulk(count), '$4\r\nmean\r\n', bulk(mean),
        '$2\r\nM2\r\n', bulk(m2),
        '*8\r\n$4\r\nHSET\r\n', bulk(seed_key), '$9\r\nwatermark\r\n', bulk({watermark:String}), '$5\r\ncount\r\n', bulk(count),
        '$6\r\ndigest\r\n', bulk(concat(digest, ending(last_ts))),
        if(
            {expire:UInt64} = 0, '',
            arrayStringConcat(arrayMap(
                key -> concat('*3\r\n$9\r\nPEXPIREAT\r\n', bulk(key), bulk(end)),
                [stats_key, seed_key]
            ))
        ),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM customers
