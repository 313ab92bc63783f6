-- The identity of gold that has no parts of its own, as a view has: its rows, in any order. A column's hash is NULL where
-- the column is, and of a tuple with a NULL in it ClickHouse 24.8 makes none.
SELECT
    count(),
    sum(sipHash64(
        ifNull(sipHash64(transaction_id), 0), ifNull(sipHash64(card_id), 0), ifNull(sipHash64(customer_id), 0),
        ifNull(sipHash64(merchant_category), 0), ifNull(sipHash64(amount), 0), ifNull(sipHash64(timestamp), 0),
        sipHash64(lat), sipHash64(lon)
    ))
FROM gold
