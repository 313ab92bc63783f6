-- The names of the aggregate functions that this ClickHouse has.
SELECT DISTINCT lower(name) AS name
FROM system.functions
WHERE is_aggregate
