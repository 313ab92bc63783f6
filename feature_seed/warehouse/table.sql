-- The engine of a server table, and what a rebuild changes: the UUID or, in a database without UUIDs, the time of the
-- table's definition.
SELECT
    engine,
    if(uuid = toUUIDOrZero(''), '', toString(uuid)) AS uuid,
    toUnixTimestamp(metadata_modification_time) AS defined
FROM system.tables
WHERE database = {database:String} AND name = {gold:String}
