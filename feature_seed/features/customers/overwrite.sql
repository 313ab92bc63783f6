SELECT
    shard_of(customer_id) AS shard,
    format({customer_stats:String}, tagged(customer_id)) AS keys,
    concat(
        '*10\r\n$4\r\nHSET\r\n', bulk(keys), '$5\r\ncount\r\n', bulk(count), '$4\r\nmean\r\n', bulk(mean),
        '$2\r\nM2\r\n', bulk(m2), '$6\r\nseeded\r\n', bulk(count)
    ) AS commands
FROM customers
