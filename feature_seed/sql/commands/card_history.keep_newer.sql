-- EVALSHA script 3 history seq seeded  <length> <newest_first> <watermark> <first_load> <count> <element>…
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    format({card_seq:String}, tagged(card_id)) AS seq_key,
    format({card_seeded:String}, tagged(card_id)) AS seeded_key,
    concat(history_key, ', ', seq_key, ', ', seeded_key) AS keys,
    concat(
        '*', toString(length(history) + 11), '\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n3\r\n',
        bulk(history_key), bulk(seq_key), bulk(seeded_key),
        bulk(toString({history_length:UInt16})), if({newest_first:Bool}, '$1\r\n1\r\n', '$1\r\n0\r\n'),
        bulk(toString({watermark:Int64})), if({first_load:Bool}, '$1\r\n1\r\n', '$1\r\n0\r\n'), bulk(count),
        arrayStringConcat(arrayMap(element -> bulk(element), history))
    ) AS commands
FROM card_history
