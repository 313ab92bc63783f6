-- How many cards hold how many transactions.
SELECT least(toUInt64(seq), {history_length:UInt16}) AS length, count() AS entities
FROM card_location
GROUP BY length
ORDER BY length
