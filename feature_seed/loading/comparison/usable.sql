-- The rows that features are made of, by conditions of the checks' own: gold.sql is part of what is checked.
SELECT
    assumeNotNull(toString(gold.card_id)) AS card,
    assumeNotNull(toString(gold.customer_id)) AS customer,
    assumeNotNull(toString(gold.transaction_id)) AS number,
    toString(gold.merchant_category) AS category,
    assumeNotNull(toFloat64(gold.amount)) AS paid,
    toUnixTimestamp64Micro(toDateTime64(assumeNotNull(gold.timestamp), 6, 'UTC')) AS micros,
    ifNull({zero_is_unknown:Bool} AND toFloat64(gold.location_lat) = 0 AND toFloat64(gold.location_long) = 0, false)
        AS placeless,
    if(toFloat64(gold.location_lat) BETWEEN -90 AND 90 AND NOT placeless, toFloat64(gold.location_lat), NULL) AS latitude,
    if(toFloat64(gold.location_long) BETWEEN -180 AND 180 AND NOT placeless, toFloat64(gold.location_long), NULL)
        AS longitude
FROM {database:Identifier}.{gold:Identifier} AS gold
WHERE length(toString(gold.transaction_id)) > 0
    AND length(toString(gold.card_id)) > 0
    AND length(toString(gold.customer_id)) > 0
    AND toUnixTimestamp64Micro(toDateTime64(gold.timestamp, 6, 'UTC')) BETWEEN -2208988800000000 AND 10413791999999999
    AND (micros != 0 OR NOT {zero_is_unknown:Bool})
    AND toFloat64(gold.amount) BETWEEN -1e100 AND 1e100
