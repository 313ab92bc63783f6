-- A row for some entities of a shard: a call of changes.lua that looks at them.
-- EVALSHA changes 2n (seed counter)…  <type of the counters> <digest count hash of each> <watermark>
WITH
    entities AS (
        SELECT {entity:Identifier} AS id, count() AS made, sum(part) AS summed, max(time) AS newest
        FROM hashed
        GROUP BY id
    ),
    -- Numbers and ids alone are held until all entities of a call are there. Their texts would take twice the memory.
    grouped AS (
        SELECT
            shard_of(id) AS shard,
            -- By hash; where keys have slots, each by itself.
            if({alone:Bool}, id, toString(hash_of(id) % {calls:UInt32})) AS chunk,
            groupArray((id, made, summed, newest)) AS members
        FROM entities
        GROUP BY shard, chunk
    )
SELECT
    shard,
    format({seed:String}, tagged(members[1].1)) AS keys,
    concat(
        '*', toString(2 * length(members) + 6), '\r\n$7\r\nEVALSHA\r\n', bulk({changes:String}),
        bulk(toString(2 * length(members))),
        arrayStringConcat(arrayMap(
            one -> concat(bulk(format({seed:String}, tagged(one.1))), bulk(format({counter:String}, tagged(one.1)))),
            members
        )),
        bulk({counter_type:String}),
        bulk(arrayStringConcat(
            arrayMap(
                one -> concat(
                    toString(toInt64(one.3 + {layout:UInt64})), ending(toString(millis(one.4) / 1000)), ' ',
                    toString(one.2), ' ', toString(hash_of(one.1))
                ),
                members
            ),
            ' '
        )),
        bulk({watermark:String})
    ) AS commands
FROM grouped
