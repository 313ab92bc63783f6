-- The transactions, each with its part of its customer's digest: the amount alone, as a String.
SELECT *, xxh3(reinterpretAsString(amount)) AS part
FROM transactions
