-- A customer's amounts, for Python to sum without rounding.
SELECT id, groupArray(paid) AS amounts
FROM sampled
GROUP BY id
