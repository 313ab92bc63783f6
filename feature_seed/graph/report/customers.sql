-- Of every customer of a sample: the mean of its amounts and their deviation.
SELECT toFloat64(mean) AS average, sqrt(toFloat64(m2) / toFloat64(count)) AS deviation
FROM customers
