-- The rows up to the watermark, as transactions.sql chooses them: their number, and a sum that any other value changes.
SELECT
    count() AS rows,
    sum(xxh3(
        assumeNotNull(transaction_id), assumeNotNull(card_id), assumeNotNull(customer_id),
        ifNull(xxh3(merchant_category), 0), assumeNotNull(amount), assumeNotNull(timestamp), lat, lon
    )) AS content
FROM gold
WHERE ({all_valid:Bool} OR valid) AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {until:Int64}
