-- A transaction id that is there more than once; asked for only when there is one.
SELECT assumeNotNull(transaction_id) AS transaction_id, count() AS times
FROM gold
WHERE valid AND sipHash64(transaction_id) = (
    SELECT sipHash64(transaction_id) AS hash
    FROM gold
    WHERE valid
    GROUP BY hash
    HAVING count() > 1
    LIMIT 1
)
GROUP BY transaction_id
ORDER BY times DESC
LIMIT 1
