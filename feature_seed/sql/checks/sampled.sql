-- The usable rows of another sample of entities in every run.
SELECT *
FROM usable
WHERE sipHash64(id, {run_id:String}) <= {threshold:UInt64}
    AND sipHash64(id) % {shard_count:UInt16} IN {shards:Array(UInt16)}
