-- The generated gold snapshot: 200,000 transactions of 5,000 cards and 2,500 customers over 90 days, always the same.
-- Skewed as cards are (a tenth of them makes half of the transactions), with same-second ties, 2 % of rows without
-- coordinates and a few cards that never have any. Cards live in and around the cities of Europe and pay near their
-- home, but for one payment in 40, which they make near another city.
WITH
    (number, salt) -> cityHash64(number, salt) / 18446744073709551615 AS random,
    -- Latitude, longitude, and how many live there, in 100,000.
    [
        (51.51, -0.13, 97), (48.86, 2.35, 110), (40.42, -3.70, 62), (52.52, 13.40, 45), (41.90, 12.50, 42),
        (41.39, 2.17, 55), (45.46, 9.19, 42), (50.85, 4.35, 21), (52.37, 4.90, 24), (51.92, 4.48, 20), (48.14, 11.58, 29),
        (53.55, 10.00, 31), (50.94, 6.96, 35), (51.51, 7.47, 38), (50.11, 8.68, 27), (48.78, 9.18, 27), (51.34, 12.37, 11),
        (48.21, 16.37, 28), (47.38, 8.54, 15), (46.20, 6.14, 9), (45.76, 4.84, 23), (43.30, 5.37, 18), (43.60, 1.44, 14),
        (44.84, -0.58, 13), (47.22, -1.55, 10), (50.63, 3.06, 15), (48.57, 7.75, 8), (43.70, 7.27, 10), (48.11, -1.68, 7),
        (53.48, -2.24, 28), (52.48, -1.90, 29), (53.80, -1.55, 19), (54.97, -1.61, 11), (55.86, -4.25, 18), (55.95, -3.19, 9),
        (51.45, -2.59, 9), (51.48, -3.18, 8), (53.35, -6.26, 20), (54.60, -5.93, 7), (51.90, -8.47, 4), (53.27, -9.05, 2),
        (38.72, -9.14, 29), (41.15, -8.61, 17), (37.39, -5.98, 15), (39.47, -0.38, 17), (36.72, -4.42, 10), (43.26, -2.93, 10),
        (43.36, -8.41, 5), (41.65, -0.89, 8), (37.99, -1.13, 7), (40.85, 14.27, 31), (45.07, 7.69, 17), (44.49, 11.34, 10),
        (43.77, 11.26, 10), (45.44, 12.32, 9), (41.12, 16.87, 8), (38.12, 13.36, 9), (37.51, 15.08, 8), (39.22, 9.12, 4),
        (55.68, 12.57, 20), (56.16, 10.20, 6), (55.60, 13.00, 7), (57.71, 11.97, 10), (59.33, 18.07, 24), (59.86, 17.64, 4),
        (59.91, 10.75, 15), (60.39, 5.32, 4), (63.43, 10.40, 3), (60.17, 24.94, 15), (61.50, 23.76, 5), (65.01, 25.47, 3),
        (63.83, 20.26, 2), (59.44, 24.75, 6), (56.95, 24.11, 9), (54.69, 25.28, 8), (52.23, 21.01, 31), (50.06, 19.94, 14),
        (51.11, 17.04, 12), (54.35, 18.65, 11), (52.41, 16.93, 10), (51.76, 19.46, 9), (50.08, 14.44, 22), (49.20, 16.61, 7),
        (48.15, 17.11, 7), (47.50, 19.04, 29), (46.06, 14.51, 5), (45.81, 15.98, 11), (44.79, 20.45, 17), (43.51, 16.44, 4),
        (43.86, 18.41, 5), (42.70, 23.32, 15), (43.21, 27.91, 4), (44.43, 26.10, 22), (46.77, 23.60, 5), (47.16, 27.59, 5),
        (41.33, 19.82, 8), (42.00, 21.43, 6), (37.98, 23.73, 37), (40.64, 22.94, 11), (35.34, 25.13, 3), (41.01, 28.98, 90)
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
