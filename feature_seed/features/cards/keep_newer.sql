-- EVALSHA script 6 history seq seed loc last_ts seeded
--     <length> <newest_first> <watermark> <count> <last_ts> <lat or ''> <lon or ''> <watermark of seeded or ''>
--     <digest> <element>…
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    format({card_seq:String}, tagged(card_id)) AS seq_key,
    format({card_seed:String}, tagged(card_id)) AS seed_key,
    format({card_location:String}, tagged(card_id)) AS location_key,
    format({card_last_ts:String}, tagged(card_id)) AS last_ts_key,
    concat(history_key, ', ', seq_key, ', ', seed_key, ', ', location_key, ', ', last_ts_key) AS keys,
    concat(
        '*', toString(length(history) + 18), '\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n6\r\n',
        bulk(history_key), bulk(seq_key), bulk(seed_key), bulk(location_key), bulk(last_ts_key),
        bulk(format({card_seeded:String}, tagged(card_id))),
        bulk(toString({history_length:UInt16})), if({newest_first:Bool}, '$1\r\n1\r\n', '$1\r\n0\r\n'),
        bulk({watermark:String}), bulk(count), bulk(last_ts),
        if(located, concat(bulk(lat), bulk(lon)), '$0\r\n\r\n$0\r\n\r\n'), bulk({seeded_watermark:String}),
        bulk(concat(digest, ending(last_ts))),
        arrayStringConcat(arrayMap(element -> bulk(element), history))
    ) AS commands
FROM cards
