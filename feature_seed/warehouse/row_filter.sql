-- The plan of a scan without a condition: what it filters by is a row policy. Of a view it says nothing.
EXPLAIN actions = 1
SELECT 1
FROM {database:Identifier}.{gold:Identifier}
