-- How many entities the chosen shards have, by hash.
SELECT uniqExact(sipHash64({entity:Identifier})) AS entities
FROM transactions
