-- EVALSHA script 2 stats seed  <watermark> <count> <mean> <M2> <watermark of seeded or ''> <digest>
SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS stats_key,
    format({customer_seed:String}, tagged(customer_id)) AS seed_key,
    concat(stats_key, ', ', seed_key) AS keys,
    concat(
        '*11\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n2\r\n', bulk(stats_key), bulk(seed_key),
        bulk({watermark:String}), bulk(count), bulk(mean), bulk(m2), bulk({seeded_watermark:String}),
        bulk(concat(digest, ending(last_ts)))
    ) AS commands
FROM customers
