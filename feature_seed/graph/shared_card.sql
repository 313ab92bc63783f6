-- The card behind a hash that shared_cards.sql has found, and some of its customers.
SELECT
    toValidUTF8(left(any(assumeNotNull(card_id)), 100)) AS example,
    arraySort(groupUniqArray(3)(toValidUTF8(left(assumeNotNull(customer_id), 100)))) AS customers
FROM gold
WHERE valid AND xxh3(assumeNotNull(card_id)) = {hash:UInt64}
