-- The identity of gold that has no parts of its own, as a view has: its rows, in any order. Of a tuple, since the hash of
-- values of which one is NULL is NULL, and adds nothing.
SELECT count(), sum(sipHash64(tuple(transaction_id, card_id, customer_id, merchant_category, amount, timestamp, lat, lon)))
FROM gold
