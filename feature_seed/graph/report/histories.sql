-- How many cards hold how many transactions.
SELECT least(transactions, {history_length:UInt16}) AS length, count() AS entities
FROM (
    SELECT count() AS transactions
    FROM transactions
    GROUP BY card_id
)
GROUP BY length
ORDER BY length
