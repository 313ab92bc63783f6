-- Every row of gold with its columns brought to one type each, and whether it can be used at all.
SELECT
    toString(gold.transaction_id) AS transaction_id,
    toString(gold.card_id) AS card_id,
    toString(gold.customer_id) AS customer_id,
    toString(gold.merchant_category) AS merchant_category,
    toFloat64(gold.amount) AS amount,
    toDateTime64(gold.timestamp, 6, 'UTC') AS timestamp,
    ifNull(toFloat64(gold.location_lat), nan) AS lat,
    ifNull(toFloat64(gold.location_long), nan) AS lon,
    ifNull(transaction_id != '' AND card_id != '' AND customer_id != '', false)
        AND isNotNull(timestamp) AND ifNull(isFinite(amount), false) AS valid
-- With its database: a table that is called like one of our relations must not be taken for it.
FROM {database:Identifier}.{gold:Identifier} AS gold
