-- A server table's identity: another after a rebuild (uuid) or a write (block numbers, mutations), the same after a
-- background merge and on every replica. A table without parts, as a view, is known by its content instead.
SELECT
    -- Databases without UUIDs start a rebuilt table's block numbers again, so there its parts' time stands in.
    if(
        tables.uuid = toUUIDOrZero(''),
        (
            SELECT toString(max(modification_time))
            FROM system.parts
            WHERE active AND database = {database:String} AND table = {gold:String}
        ),
        toString(tables.uuid)
    ),
    (
        SELECT groupArray((partition_id, first, block))
        FROM (
            SELECT
                partition_id,
                -- Inserts and merges leave it; whatever takes rows away or rewrites them raises it.
                min(data_version) AS first,
                max(greatest(max_block_number, toInt64(data_version))) AS block
            FROM system.parts
            WHERE active AND database = {database:String} AND table = {gold:String}
            GROUP BY partition_id
            ORDER BY partition_id
        )
    ) AS blocks,
    if(tables.uuid = toUUIDOrZero(''), toString(tables.metadata_modification_time), toString(tables.uuid)) AS created
FROM system.tables AS tables
WHERE database = {database:String} AND name = {gold:String}
