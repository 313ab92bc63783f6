-- The newest transactions of every card as a window function finds them: all rows are sorted, then cut.
SELECT card_id, transaction_id, merchant_category, amount, timestamp, location_lat, location_long
FROM (
    SELECT *, row_number() OVER (PARTITION BY card_id ORDER BY timestamp DESC, transaction_id DESC) AS place
    FROM {database:Identifier}.{gold:Identifier}
)
WHERE place <= {history_length:UInt16}
