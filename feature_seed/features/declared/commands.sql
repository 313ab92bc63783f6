-- A row for each key, and for each part of one that comes in several.
SELECT one.1 AS shard, one.2 AS keys, one.3 AS commands
FROM (
    SELECT arrayJoin(arrayConcat(
{commands}
    )) AS one
    FROM prepared
)
