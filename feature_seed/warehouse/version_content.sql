-- The identity of gold without parts, such as a view: its rows, in any order. The hash of a NULL is NULL, and
-- ClickHouse 24.8 makes no hash of a tuple with a NULL in it.
SELECT
    count(),
    sum(sipHash64(
        ifNull(sipHash64(transaction_id), 0), ifNull(sipHash64(card_id), 0), ifNull(sipHash64(customer_id), 0),
        ifNull(sipHash64(merchant_category), 0), ifNull(sipHash64(amount), 0), ifNull(sipHash64(timestamp), 0),
        sipHash64(lat), sipHash64(lon)
    ))
FROM gold
