-- The rows of a SELECT of the operator's own, with their time.
SELECT *, toUnixTimestamp64Micro(toDateTime64(timestamp, 6, 'UTC')) AS _time
FROM (
{select}
)
