-- EVALSHA script 1 stats  <first_load> <count> <mean> <M2>
SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS keys,
    concat(
        '*8\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n1\r\n', bulk(keys),
        if({first_load:Bool}, '$1\r\n1\r\n', '$1\r\n0\r\n'), bulk(count), bulk(mean), bulk(m2)
    ) AS commands
FROM customers
