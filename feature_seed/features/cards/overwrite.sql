-- MULTI, DEL, HDEL, RPUSH, MSET, HSET or DEL, HSET, where cards expire PEXPIREAT of each key, EXEC: a reader never meets a
-- list without its elements or its count, or a place without its time. The seed comes without a live event. A key that is
-- deleted first, and a hash of which all fields are, leaves no end, which the load before may have given it. DEL would
-- take the key of another program.
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    format({card_seq:String}, tagged(card_id)) AS seq_key,
    format({card_seed:String}, tagged(card_id)) AS seed_key,
    format({card_location:String}, tagged(card_id)) AS location_key,
    format({card_last_ts:String}, tagged(card_id)) AS last_ts_key,
    concat(history_key, ', ', seq_key, ', ', seed_key, ', ', location_key, ', ', last_ts_key) AS keys,
    toString(toInt64(round(1000 * (toFloat64(last_ts) + {expire:UInt64})))) AS end,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        '*4\r\n$3\r\nDEL\r\n', bulk(history_key), bulk(seed_key), bulk(format({card_seeded:String}, tagged(card_id))),
        '*4\r\n$4\r\nHDEL\r\n', bulk(location_key), '$3\r\nlat\r\n$3\r\nlon\r\n',
        '*', toString(length(history) + 2), '\r\n$5\r\nRPUSH\r\n', bulk(history_key),
        arrayStringConcat(arrayMap(element -> bulk(element), history)),
        '*5\r\n$4\r\nMSET\r\n', bulk(seq_key), bulk(count), bulk(last_ts_key), bulk(last_ts),
        if(
            located,
            concat('*6\r\n$4\r\nHSET\r\n', bulk(location_key), '$3\r\nlat\r\n', bulk(lat), '$3\r\nlon\r\n', bulk(lon)),
            concat('*2\r\n$3\r\nDEL\r\n', bulk(location_key))
        ),
        '*8\r\n$4\r\nHSET\r\n', bulk(seed_key), '$9\r\nwatermark\r\n', bulk({watermark:String}), '$5\r\ncount\r\n', bulk(count),
        '$6\r\ndigest\r\n', bulk(concat(digest, ending(last_ts))),
        if(
            {expire:UInt64} = 0, '',
            arrayStringConcat(arrayMap(
                key -> concat('*3\r\n$9\r\nPEXPIREAT\r\n', bulk(key), bulk(end)),
                [history_key, seq_key, location_key, last_ts_key, seed_key]
            ))
        ),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM cards
