-- Entities per shard that have the feature.
SELECT shard, count() AS entities, sum(transactions) AS transactions
FROM (
{entities}
)
GROUP BY shard
