-- A server table's identity. A rebuild changes the uuid, an insert the parts; a view has neither, but a row count.
SELECT
    toString(tables.uuid),
    toString(tables.metadata_modification_time),
    tables.total_rows,
    (
        SELECT toString(max(modification_time))
        FROM system.parts
        WHERE active AND database = {database:String} AND table = {gold:String}
    )
FROM system.tables AS tables
WHERE database = {database:String} AND name = {gold:String}
