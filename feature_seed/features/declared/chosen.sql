-- The rows of the chosen shards that are in a window of the features (`_in_0` …), and the key's columns as texts.
SELECT
    *,
    {columns}
FROM {source}
WHERE {named}
    AND ({read})
    AND (length({{shards:Array(UInt16)}}) = {{shard_count:UInt16}} OR shard_of(_key_1) IN {{shards:Array(UInt16)}})
