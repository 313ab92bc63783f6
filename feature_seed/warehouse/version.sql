-- What a rebuild changes of a server table: its UUID or, in a database without UUIDs, the time of its definition.
SELECT
    if(uuid = toUUIDOrZero(''), '', toString(uuid)) AS uuid,
    toUnixTimestamp(metadata_modification_time) AS defined
FROM system.tables
WHERE database = {database:String} AND name = {gold:String}
