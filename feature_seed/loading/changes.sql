-- A row for some entities of a shard: a call of changes.lua that looks at them.
-- EVALSHA changes 2n (seed counter)…  <type of the counters> <digest count hash of each> <watermark>
WITH
    entities AS (
        SELECT
            {entity:Identifier} AS id,
            count() AS made,
            concat(toString(toInt64(sum(part) + {layout:UInt64})), ending(toString(millis(max(time)) / 1000))) AS digest
        FROM hashed
        GROUP BY id
    ),
    grouped AS (
        SELECT
            shard_of(id) AS shard,
            -- By hash; where keys have slots, each by itself.
            if({alone:Bool}, id, toString(hash_of(id) % {calls:UInt32})) AS chunk,
            groupArray((
                format({seed:String}, tagged(id)),
                concat(bulk(format({seed:String}, tagged(id))), bulk(format({counter:String}, tagged(id)))),
                concat(digest, ' ', toString(made), ' ', toString(hash_of(id)))
            )) AS members
        FROM entities
        GROUP BY shard, chunk
    )
SELECT
    shard,
    members[1].1 AS keys,
    concat(
        '*', toString(2 * length(members) + 6), '\r\n$7\r\nEVALSHA\r\n', bulk({changes:String}),
        bulk(toString(2 * length(members))), arrayStringConcat(arrayMap(one -> one.2, members)),
        bulk({counter_type:String}), bulk(arrayStringConcat(arrayMap(one -> one.3, members), ' ')),
        bulk({watermark:String})
    ) AS commands
FROM grouped
