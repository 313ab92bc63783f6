-- The generated gold snapshot: 200,000 transactions of 5,000 cards and 2,500 customers over 90 days, always the same.
-- Skewed as cards are (a tenth of them makes half of the transactions), with same-second ties, 2 % of rows without
-- coordinates and a few cards that never have any.
WITH
    (number, salt) -> cityHash64(number, salt) / 18446744073709551615 AS random
SELECT
    concat('tx-', leftPad(toString(number), 7, '0')) AS transaction_id,
    concat('card-', leftPad(toString(card), 4, '0')) AS card_id,
    concat('cust-', leftPad(toString(intDiv(card, 2)), 4, '0')) AS customer_id,
    concat('merchant-', leftPad(toString(cityHash64(number, 'merchant') % 800), 3, '0')) AS merchant_id,
    ['grocery', 'fuel', 'travel', 'online', 'restaurant', 'café "Zoë"'][cityHash64(number, 'category') % 6 + 1] AS merchant_category,
    round(exp(2 + random(card, 'level') * 2 + random(number, 'amount') * 2), 2) AS amount,
    toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalSecond(intDiv(number, 2) * 77) AS timestamp,
    random(number, 'unlocated') < 0.02 OR card % 500 = 499 AS unlocated,
    if(unlocated, NULL, round(-60 + random(card, 'lat') * 120 + random(number, 'lat'), 4)) AS location_lat,
    if(unlocated, NULL, round(-180 + random(card, 'lon') * 359 + random(number, 'lon'), 4)) AS location_long
FROM (
    WITH (number, salt) -> cityHash64(number, salt) / 18446744073709551615 AS random -- 24.8 sees no other's
    SELECT number, if(number < 5000, number, toUInt64(5000 * pow(random(number, 'card'), 3))) AS card
    FROM numbers(200000)
)
