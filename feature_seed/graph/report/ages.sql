-- How many cards were used last how long before gold ends: 16 bins to a decade of seconds, the first a minute or less.
SELECT toInt32(floor(16 * log10(greatest({watermark:Float64} - toFloat64(last_ts), 60)))) AS bin, count() AS entities
FROM cards
GROUP BY bin
ORDER BY bin
