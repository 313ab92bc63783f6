-- The rows up to the watermark, as transactions.sql chooses them.
SELECT
    count() AS rows,
    sum(xxh3(tuple(transaction_id, card_id, customer_id, merchant_category, amount, timestamp, lat, lon))) AS content
FROM gold
WHERE ({all_valid:Bool} OR valid) AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {until:Int64}
