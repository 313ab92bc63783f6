-- No row, of every column that is read later. The error for a user who may not read one names the column.
SELECT count()
FROM (
    SELECT transaction_id, card_id, customer_id, merchant_category, amount, timestamp, location_lat, location_long
    FROM {database:Identifier}.{gold:Identifier}
    WHERE 0
)
WHERE NOT ignore(*)
