-- Nothing, of every column that is read later: whoever may not read one of them is told which.
SELECT count()
FROM (
    SELECT transaction_id, card_id, customer_id, merchant_category, amount, timestamp, location_lat, location_long
    FROM {database:Identifier}.{gold:Identifier}
    WHERE 0
)
WHERE NOT ignore(*)
