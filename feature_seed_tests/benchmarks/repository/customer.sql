-- A row per customer: the Welford state of its amounts.
INSERT INTO FUNCTION file({features:String}, 'Parquet')
SELECT
    customer_id,
    max(timestamp) AS event_timestamp,
    count() AS count,
    avg(amount) AS mean,
    varPopStable(amount) * count() AS M2
FROM file({gold:String}, 'Parquet')
GROUP BY customer_id
