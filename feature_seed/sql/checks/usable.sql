-- The rows that features are made of, by conditions of the checks' own: gold.sql is part of what is checked.
SELECT
    assumeNotNull(toString({entity:Identifier})) AS id,
    assumeNotNull(toString(gold.transaction_id)) AS number,
    toString(gold.merchant_category) AS category,
    assumeNotNull(toFloat64(gold.amount)) AS paid,
    toUnixTimestamp64Micro(toDateTime64(assumeNotNull(gold.timestamp), 6, 'UTC')) AS micros,
    toFloat64(gold.location_lat) AS latitude,
    toFloat64(gold.location_long) AS longitude
FROM {database:Identifier}.{gold:Identifier} AS gold
WHERE length(toString(gold.transaction_id)) > 0
    AND length(toString(gold.card_id)) > 0
    AND length(toString(gold.customer_id)) > 0
    AND isNotNull(gold.timestamp)
    AND micros <= {until:Int64} -- newer ones came after gold was profiled, and are a stream's to bring
    AND abs(toFloat64(gold.amount)) <= 1.7976931348623157e308
