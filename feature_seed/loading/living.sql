-- The transactions of entities that have not expired by the watermark. By hash, since a set of ids takes more memory.
SELECT *
FROM every
WHERE sipHash64({entity:Identifier}) IN (
    SELECT sipHash64({entity:Identifier})
    FROM every
    WHERE time > {until:Int64} - {expire:Int64} * 1000000
)
