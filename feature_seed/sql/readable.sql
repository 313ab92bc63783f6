-- The usable rows up to the watermark, as transactions.sql chooses them.
SELECT count() AS rows
FROM gold
WHERE valid AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {until:Int64}
