-- What is in gold, in one cheap scan: how much, how much of it is unusable, and about how many entities.
SELECT
    count() AS rows,
    countIf(NOT valid) AS rejected,
    uniqIf(card_id, valid) AS cards,
    uniqIf(customer_id, valid) AS customers,
    assumeNotNull(maxIf(timestamp, valid)) AS watermark
FROM gold
