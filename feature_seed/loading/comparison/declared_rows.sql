-- The contract's columns of the usable rows, as expressions see them.
SELECT
    {others}_number AS transaction_id,
    _card AS card_id,
    _customer AS customer_id,
    _category AS merchant_category,
    _paid AS amount,
    fromUnixTimestamp64Micro(_micros, 'UTC') AS timestamp,
    _latitude AS location_lat,
    _longitude AS location_long,
    _micros
FROM usable
