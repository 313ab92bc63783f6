-- The generated gold snapshot: 200,000 transactions of 5,000 cards and 2,500 customers over 90 days, always the same.
-- Skewed as cards are (a tenth of them makes half of the transactions), with same-second ties, 2 % of rows without
-- coordinates and a few cards that never have any. Cards live in and around the cities of Europe and pay near their
-- home, but for one payment in 40, which they make near another city.
WITH
    (number, salt) -> cityHash64(number, salt) / 18446744073709551615 AS random,
    -- Latitude, longitude, and how many live there, in 100,000.
    [
        (51.51, -0.13, 97), (48.86, 2.35, 110), (40.42, -3.70, 62), (52.52, 13.40, 45), (41.90, 12.50, 42), (41.39, 2.17, 55),
        (45.46, 9.19, 42), (52.37, 4.90, 44), (48.14, 11.58, 29), (53.55, 10.00, 31), (48.21, 16.37, 28), (45.76, 4.84, 41),
        (43.30, 5.37, 32), (44.84, -0.58, 23), (53.48, -2.24, 57), (55.95, -3.19, 27), (53.35, -6.26, 26), (38.72, -9.14, 46),
        (37.39, -5.98, 25), (39.47, -0.38, 24), (40.85, 14.27, 39), (38.12, 13.36, 17), (55.68, 12.57, 36), (59.33, 18.07, 30),
        (59.91, 10.75, 22), (60.17, 24.94, 23), (56.95, 24.11, 23), (52.23, 21.01, 54), (50.06, 19.94, 26), (50.08, 14.44, 29),
        (47.50, 19.04, 36), (45.81, 15.98, 20), (44.79, 20.45, 26), (42.70, 23.32, 19), (44.43, 26.10, 32), (37.98, 23.73, 37),
        (40.64, 22.94, 25), (41.01, 28.98, 90)
    ] AS cities,
    arrayFlatten(arrayMap((city, i) -> arrayMap(resident -> i, range(city.3)), cities, arrayEnumerate(cities))) AS residents,
    random(number, 'travels') < 0.025 AS travels,
    if(travels, number + 5000, card) AS stay,
    cities[residents[1 + toUInt16(random(stay, 'city') * length(residents))]] AS city,
    -0.15 * log(random(stay, 'distance')) * if(random(stay, 'countryside') < 0.3, 3, 1) AS degrees,
    2 * pi() * random(stay, 'direction') AS direction
SELECT
    concat('tx-', leftPad(toString(number), 7, '0')) AS transaction_id,
    concat('card-', leftPad(toString(card), 4, '0')) AS card_id,
    concat('cust-', leftPad(toString(intDiv(card, 2)), 4, '0')) AS customer_id,
    concat('merchant-', leftPad(toString(cityHash64(number, 'merchant') % 800), 3, '0')) AS merchant_id,
    ['grocery', 'fuel', 'travel', 'online', 'restaurant', 'café "Zoë"'][cityHash64(number, 'category') % 6 + 1] AS merchant_category,
    round(exp(2 + random(card, 'level') * 2 + random(number, 'amount') * 2), 2) AS amount,
    toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalSecond(intDiv(number, 2) * 77) AS timestamp,
    random(number, 'unlocated') < 0.02 OR card % 500 = 499 AS unlocated,
    if(unlocated, NULL, round(city.1 + degrees * sin(direction) + random(number, 'lat') * 0.02, 4)) AS location_lat,
    if(unlocated, NULL, round(city.2 + degrees * cos(direction) / cos(radians(city.1)) + random(number, 'lon') * 0.03, 4))
        AS location_long
FROM (
    WITH (number, salt) -> cityHash64(number, salt) / 18446744073709551615 AS random -- 24.8 sees no other's
    SELECT number, if(number < 5000, number, toUInt64(5000 * pow(random(number, 'card'), 3))) AS card
    FROM numbers(200000)
)
