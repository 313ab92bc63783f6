-- About how many entities the chosen shards have, and how many of their rows a feature reads.
SELECT uniq(COLUMNS('^_key_')) AS entities, count() AS rows
FROM chosen
