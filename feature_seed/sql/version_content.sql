-- The identity of gold that has no parts of its own, as a view has: its rows, in any order.
SELECT count(), sum(sipHash64(transaction_id, card_id, customer_id, merchant_category, amount, timestamp, lat, lon))
FROM gold
