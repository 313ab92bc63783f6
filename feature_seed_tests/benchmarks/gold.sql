-- A gold table of any size, always the same: cards drawn evenly, half as many customers, 180 days, 2 % without coordinates.
-- Every id has so many characters.
INSERT INTO FUNCTION file({gold:String}, 'Parquet')
WITH
    (salt) -> cityHash64(number, salt) / 18446744073709551616 AS random,
    (salt) -> cityHash64(card, salt) / 18446744073709551616 AS place,
    cityHash64(number, 'card') % {cards:UInt64} AS card,
    random('located') < 0.02 AS unlocated
SELECT
    concat('t', leftPad(toString(number), {ids:UInt8} - 1, '0')) AS transaction_id,
    concat('card-', leftPad(toString(card), {ids:UInt8} - 5, '0')) AS card_id,
    concat('cust-', leftPad(toString(intDiv(card, 2)), {ids:UInt8} - 5, '0')) AS customer_id,
    ['GROCERY', 'TRAVEL', 'LUXURY', 'FUEL', 'TRANSPORT', 'ONLINE'][cityHash64(number, 'category') % 6 + 1] AS merchant_category,
    round(exp(2.5 + random('amount') * 4), 2) AS amount,
    toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalSecond(intDiv(number * 15552000, {transactions:UInt64})) AS timestamp,
    if(unlocated, NULL, round(place('lat') * 140 - 70 + random('lat'), 4)) AS location_lat,
    if(unlocated, NULL, round(place('long') * 340 - 170 + random('long'), 4)) AS location_long
FROM numbers({transactions:UInt64})
