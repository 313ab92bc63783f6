-- A row per card, with all that is kept of it: the ten latest transactions as one JSON string.
INSERT INTO FUNCTION file({features:String}, 'Parquet')
WITH
    concat(replaceOne(toString(timestamp, 'UTC'), ' ', 'T'), '+00:00') AS time,
    CAST(
        (time, transaction_id, merchant_category, amount, location_lat, location_long),
        'Tuple(timestamp String, transaction_id String, merchant_category String, amount Float64, location_lat Nullable(Float64), location_long Nullable(Float64))'
    ) AS transaction,
    arraySort(groupArray(transaction)) AS transactions,
    arrayLast(t -> isNotNull(t.location_lat) AND isNotNull(t.location_long), transactions) AS located
SELECT
    card_id,
    max(timestamp) AS event_timestamp,
    toJSONString(arraySlice(transactions, -10)) AS history,
    located.location_lat AS lat,
    located.location_long AS lon,
    toUnixTimestamp64Milli(event_timestamp) / 1000 AS last_ts,
    count() AS seq
FROM file({gold:String}, 'Parquet')
GROUP BY card_id
