-- The transaction id behind a hash that duplicates.sql has found more than once.
SELECT toValidUTF8(left(any(assumeNotNull(transaction_id)), 100)) AS example, count() AS times
FROM gold
WHERE sipHash64(assumeNotNull(transaction_id)) = {hash:UInt64} AND isNotNull(transaction_id)
