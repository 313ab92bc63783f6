-- `limit` and `offset` of a profile cut every result and show in no table. ClickHouse refuses this query to a user who
-- has them and may not change them.
SELECT 1
SETTINGS limit = 0, offset = 0
