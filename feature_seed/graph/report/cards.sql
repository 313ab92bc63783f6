-- Of every card of a sample: the length of its history, the seconds from its last transaction to the newest in gold, and
-- where it was last, in degrees, nan where that is unknown.
SELECT
    least(toUInt64(count), {history_length:UInt16}) AS length,
    {watermark:Float64} - toFloat64(last_ts) AS age,
    if(located, toFloat64(lon), nan) AS longitude,
    if(located, toFloat64(lat), nan) AS latitude
FROM cards
