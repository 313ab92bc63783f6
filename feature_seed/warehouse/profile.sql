-- What is in gold, in one cheap scan: how much, how much of it is unusable, and how many entities. Rows after `latest` are
-- not read. Exact counts, by hash, take 0.7 CPU-seconds more than estimates for 10 M rows; counting in a scan of its own
-- takes 1.4 for each entity.
SELECT
    count() - unread AS rows,
    countIf(NOT valid) AS rejected,
    uniqExactIf(sipHash64(card_id), valid AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {latest:Int64}) AS cards,
    uniqExactIf(
        sipHash64(customer_id), valid AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {latest:Int64}
    ) AS customers,
    countIf(valid AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) > {latest:Int64}) AS unread,
    assumeNotNull(minIf(timestamp, valid)) AS oldest,
    assumeNotNull(maxIf(timestamp, valid)) AS newest
FROM gold
