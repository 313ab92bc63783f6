-- Hashes of gold's cards and customers, in order: of all rows, those that are rejected or after the watermark too. They are
-- in one row, of which nothing comes if an answer ends early. Python has MD5 as well.
SELECT
    arraySort(groupUniqArray(halfMD5(assumeNotNull(card_id)))) AS cards,
    arraySort(groupUniqArray(halfMD5(assumeNotNull(customer_id)))) AS customers
FROM gold
