-- What an insert or a mutation changes of a server table, and neither a background merge nor the choice of a replica.
SELECT
    partition_id,
    -- Inserts and merges leave it; whatever takes rows away or rewrites them raises it.
    min(data_version) AS first,
    max(greatest(max_block_number, toInt64(data_version))) AS block,
    toUnixTimestamp(max(modification_time)) AS written
FROM system.parts
WHERE active AND database = {database:String} AND table = {gold:String}
GROUP BY partition_id
ORDER BY partition_id
