-- A row for each entity of some shards: the commands that read its count and its seed, and what gold has of it.
-- The count comes first: an event between the two shows in the seed then.
SELECT
    shard_of(id) AS shard,
    format({seed:String}, tagged(id)) AS seed_key,
    concat(
        if({counter_type:String} = 'HASH', '*3\r\n$5\r\nHMGET\r\n', '*2\r\n$3\r\nGET\r\n'),
        bulk(format({counter:String}, tagged(id))),
        if({counter_type:String} = 'HASH', '$5\r\ncount\r\n', ''),
        '*2\r\n$7\r\nHGETALL\r\n', bulk(seed_key)
    ) AS commands,
    concat(toString(toInt64(summed + {layout:UInt64})), ending(toString(millis(newest) / 1000))) AS digest,
    toString(made) AS count,
    hash_of(id) AS hash
FROM (
    SELECT {entity:Identifier} AS id, count() AS made, sum(part) AS summed, max(time) AS newest
    FROM hashed
    GROUP BY id
)
