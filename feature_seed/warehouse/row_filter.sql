-- The plan of a scan without a condition. A filter in it is a row policy. The plan of a view says nothing.
EXPLAIN actions = 1
SELECT 1
FROM {database:Identifier}.{gold:Identifier}
