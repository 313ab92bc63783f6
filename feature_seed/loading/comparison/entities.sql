-- Gold's entities per shard, and which of the ids scanned in the store are among them: 1.6 CPU-seconds for 10 M rows.
-- Counted by hash: groups of ids take as long and 200 MB more for 1 M of them. Looked up by CRC32, which Python has too:
-- whatever their length, a thousand ids fit into the URL of a request.
SELECT
    sipHash64(id) % {shard_count:UInt16} AS shard,
    uniqExact(sipHash64(id)) AS entities,
    count() AS transactions,
    groupUniqArrayIf(id, CRC32(id) IN {scanned:Array(UInt32)}) AS known
FROM usable
GROUP BY shard
