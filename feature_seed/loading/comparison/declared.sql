-- What gold says of a declared feature, by a query that shares nothing with the load's but the expressions themselves.
SELECT
    _ids AS ids,
    any(_shard) AS shard,
    max(_micros) AS newest,
    count() AS transactions,
    {united} AS united,
    {content} AS content
FROM (
    SELECT
        *,
        [{keys}] AS _ids,
        sipHash64(_ids[1]) % {{shard_count:UInt16}} AS _shard,
        {{untils:Array(Int64)}}[if(length({{untils:Array(Int64)}}) = 1, 1, _shard + 1)] AS _until
    FROM {source}
    WHERE NOT has(_ids, '')
)
WHERE _shard IN {{shards:Array(UInt16)}}
    AND sipHash64(arrayStringConcat(_ids, '\0'), {{run_id:String}}) BETWEEN {{first:UInt64}} AND {{last:UInt64}}
    AND {condition}
GROUP BY _ids
HAVING newest > any(_until) - {lifetime}
