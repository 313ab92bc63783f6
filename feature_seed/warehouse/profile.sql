-- What is in gold, in one cheap scan: how much, how much of it is unusable, and how many entities. Exact counts, by hash,
-- take 0.7 CPU-seconds more than estimates for 10 M rows; counting in a scan of its own takes 1.4 for each entity.
SELECT
    count() AS rows,
    countIf(NOT valid) AS rejected,
    uniqExactIf(sipHash64(card_id), valid) AS cards,
    uniqExactIf(sipHash64(customer_id), valid) AS customers,
    uniqExactIf(xxh3(assumeNotNull(card_id), assumeNotNull(customer_id)), valid) AS pairs,
    assumeNotNull(maxIf(timestamp, valid)) AS watermark
FROM gold
