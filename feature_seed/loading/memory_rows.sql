-- The first rows of gold (0.03 s for 10 M): how long the values of a history's elements are, and some customers.
SELECT
    avg(
        length(transaction_id) + length(ifNull(toJSONString(merchant_category), 'null')) + length(toString(amount))
        + length(toString(lat)) + length(toString(lon))
    ) AS values_bytes,
    avg(length(transaction_id)) AS id_bytes,
    groupUniqArrayIf(
        assumeNotNull(customer_id), sipHash64(assumeNotNull(customer_id)) % {shard_count:UInt64} IN {shards:Array(UInt64)}
    ) AS customers
FROM (SELECT * FROM gold WHERE valid LIMIT 1000)
