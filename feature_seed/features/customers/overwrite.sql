-- MULTI, DEL, HDEL, HSET, HSET, EXEC: the stats are gold's, and the seed comes last and without a live event. HDEL takes
-- what the version before has left; DEL would take the key of another program.
SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS stats_key,
    format({customer_seed:String}, tagged(customer_id)) AS seed_key,
    concat(stats_key, ', ', seed_key) AS keys,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        '*2\r\n$3\r\nDEL\r\n', bulk(seed_key),
        '*3\r\n$4\r\nHDEL\r\n', bulk(stats_key), '$6\r\nseeded\r\n',
        '*8\r\n$4\r\nHSET\r\n', bulk(stats_key), '$5\r\ncount\r\n', bulk(count), '$4\r\nmean\r\n', bulk(mean),
        '$2\r\nM2\r\n', bulk(m2),
        '*8\r\n$4\r\nHSET\r\n', bulk(seed_key), '$9\r\nwatermark\r\n', bulk({watermark:String}), '$5\r\ncount\r\n', bulk(count),
        '$6\r\ndigest\r\n', bulk(digest),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM customers
