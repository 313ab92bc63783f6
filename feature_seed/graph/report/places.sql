-- Where every card was last, in degrees.
SELECT toFloat64(lon) AS x, toFloat64(lat) AS y
FROM cards
WHERE located
