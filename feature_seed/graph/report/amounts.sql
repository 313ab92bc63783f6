-- The mean of every customer's amounts and their deviation, as powers of ten: what has none has no place on log axes.
SELECT log10(toFloat64(mean)) AS x, log10(sqrt(toFloat64(m2) / toFloat64(count))) AS y
FROM customers
WHERE isFinite(x) AND isFinite(y)
