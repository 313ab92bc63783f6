-- A customer's amounts, for Python to sum without rounding.
SELECT id, groupArray(paid) AS amounts, max(micros) AS newest
FROM sampled
GROUP BY id
