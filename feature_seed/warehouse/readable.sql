-- The rows up to the watermark, as transactions.sql chooses them.
SELECT count() AS rows
FROM gold
WHERE ({all_valid:Bool} OR valid) AND toUnixTimestamp64Micro(assumeNotNull(timestamp)) <= {until:Int64}
