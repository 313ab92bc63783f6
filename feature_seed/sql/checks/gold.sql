-- Gold's rows by the first thing that is wrong with them, in one scan: 1.9 CPU-seconds for 10 M rows of Parquet, of
-- which counting distinct ids is half. Hashes of ids cost half the memory of ids.
SELECT
    multiIf(
        valid, '',
        empty(ifNull(transaction_id, '')), 'no transaction id',
        empty(ifNull(card_id, '')), 'no card',
        empty(ifNull(customer_id, '')), 'no customer',
        isNull(timestamp), 'no timestamp',
        isNull(amount), 'amount missing',
        'amount not finite'
    ) AS reason,
    count() AS rows,
    toJSONString(
        any(tuple(transaction_id, card_id, customer_id, timestamp, amount))::Tuple(
            transaction_id Nullable(String), card_id Nullable(String), customer_id Nullable(String),
            timestamp Nullable(String), amount Nullable(String)
        )
    ) AS example,
    maxIf(timestamp, valid) AS newest,
    countIf(valid) - uniqExactIf(sipHash64(transaction_id), valid) AS repeated
FROM gold
GROUP BY reason
