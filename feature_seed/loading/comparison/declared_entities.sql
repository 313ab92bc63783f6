-- Entities per shard that have the feature.
SELECT shard, count() AS entities, sum(transactions) AS transactions, [] AS known
FROM (
{entities}
)
GROUP BY shard
