-- Gold's entities per shard that have not expired, and which of the ids scanned in the store are among them: 1.6 CPU-seconds for 10 M rows.
-- Counted by hash: groups of ids take as long and 200 MB more for 1 M of them. Looked up by CRC32, which Python has too:
-- whatever their length, a thousand ids fit into the URL of a request.
SELECT
    sipHash64(id) % {shard_count:UInt16} AS shard,
    uniqExactIf(
        sipHash64(id),
        {expire:Int64} = 0
            OR micros > {untils:Array(Int64)}[if(length({untils:Array(Int64)}) = 1, 1, shard + 1)] - {expire:Int64} * 1000000
    ) AS entities,
    count() AS transactions,
    groupUniqArrayIf(id, CRC32(id) IN {scanned:Array(UInt32)}) AS known
FROM usable
GROUP BY shard
