-- Some cards of the chosen shards and the lengths of their histories. The cards are chosen by the hash of the id,
-- whatever gold's order: one column is read whole (0.2 s for 10 M rows). A remainder below shard_count is the shard
-- itself.
SELECT toString(card_id) AS id, least(count(), {history_length:UInt16}) AS transactions
FROM {database:Identifier}.{gold:Identifier}
WHERE sipHash64(toString(card_id)) % ({shard_count:UInt64} * {one_in:UInt64}) IN {shards:Array(UInt64)}
GROUP BY id
