-- The usable rows up to the watermark: the contract's columns with its types, and those of gold's others that are used.
SELECT
    {others}assumeNotNull(transaction_id) AS transaction_id,
    assumeNotNull(card_id) AS card_id,
    assumeNotNull(customer_id) AS customer_id,
    merchant_category,
    assumeNotNull(amount) AS amount,
    assumeNotNull(timestamp) AS timestamp,
    if(isFinite(_lat), _lat, NULL) AS location_lat,
    if(isFinite(_lon), _lon, NULL) AS location_long,
    toUnixTimestamp64Micro(assumeNotNull(timestamp)) AS _time
FROM gold
WHERE ({{all_valid:Bool}} OR _valid) AND _time <= {{until:Int64}}
