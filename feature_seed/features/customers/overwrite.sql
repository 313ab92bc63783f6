-- DEL, HDEL, HSET, HSET: the seed goes first and comes last, so that an entity that was broken off has none.
SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS stats_key,
    format({customer_seed:String}, tagged(customer_id)) AS seed_key,
    concat(stats_key, ', ', seed_key) AS keys,
    concat(
        '*2\r\n$3\r\nDEL\r\n', bulk(seed_key),
        '*3\r\n$4\r\nHDEL\r\n', bulk(stats_key), '$6\r\nseeded\r\n',
        '*8\r\n$4\r\nHSET\r\n', bulk(stats_key), '$5\r\ncount\r\n', bulk(count), '$4\r\nmean\r\n', bulk(mean),
        '$2\r\nM2\r\n', bulk(m2),
        '*6\r\n$4\r\nHSET\r\n', bulk(seed_key), '$9\r\nwatermark\r\n', bulk({watermark:String}), '$5\r\ncount\r\n', bulk(count)
    ) AS commands
FROM customers
