-- The usable rows of a slice of entities; by the run's id in the hash, of others in every run.
SELECT *
FROM usable
WHERE sipHash64(id, {run_id:String}) BETWEEN {first:UInt64} AND {last:UInt64}
    AND sipHash64(id) % {shard_count:UInt16} IN {shards:Array(UInt16)}
