-- The rows of the chosen shards that are in a feature's window: the key's columns as texts, which features' the row is
-- (`_in_0` …), and members and scores.
SELECT
    *,
    {columns}
FROM {source}
WHERE {named}
    AND ({read})
    AND (length({{shards:Array(UInt16)}}) = {{shard_count:UInt16}} OR shard_of(_key_1) IN {{shards:Array(UInt16)}})
