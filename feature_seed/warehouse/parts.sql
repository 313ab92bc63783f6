-- What an insert or a mutation changes in a server table. A background merge or another replica changes none of it.
SELECT
    partition_id,
    -- Inserts and merges leave data_version. Whatever takes rows away or rewrites them raises it.
    min(data_version) AS first,
    max(greatest(max_block_number, toInt64(data_version))) AS block,
    toUnixTimestamp(max(modification_time)) AS written
FROM system.parts
WHERE active AND database = {database:String} AND table = {gold:String}
GROUP BY partition_id
ORDER BY partition_id
