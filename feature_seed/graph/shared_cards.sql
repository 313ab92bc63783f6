-- How many cards have several customers, and the hash of one. Only asked if there are any: 10 M rows take 1.5
-- CPU-seconds.
SELECT countIf(least_customer != greatest_customer) AS cards, anyIf(card, least_customer != greatest_customer) AS hash
FROM (
    SELECT
        xxh3(assumeNotNull(card_id)) AS card,
        min(xxh3(assumeNotNull(customer_id))) AS least_customer,
        max(xxh3(assumeNotNull(customer_id))) AS greatest_customer
    FROM gold
    WHERE valid
    GROUP BY card
)
