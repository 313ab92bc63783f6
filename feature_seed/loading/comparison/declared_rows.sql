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
-- Newer rows come with a stream. Shards that were loaded by runs of their own may have watermarks of their own.
WHERE _micros <= {{untils:Array(Int64)}}[if(
    length({{untils:Array(Int64)}}) = 1,
    1,
    sipHash64(assumeNotNull(toString({{entity:Identifier}}))) % {{shard_count:UInt16}} + 1
)]
