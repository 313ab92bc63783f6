-- The transactions, each with its part of its card's digest: everything that the features of a card are made of, in one
-- String, which every version of ClickHouse hashes alike. What select.sql reads has to be in it.
SELECT
    *,
    xxh3(concat(
        reinterpretAsFixedString(time), reinterpretAsFixedString(amount),
        reinterpretAsFixedString(lat), reinterpretAsFixedString(lon),
        reinterpretAsFixedString(length(transaction_id)), transaction_id, ifNull(concat('=', merchant_category), '')
    )) AS part
FROM transactions
