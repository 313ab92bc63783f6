-- EVALSHA script 4 loc last_ts seq seeded  <last_ts> [<lat> <lon>]
SELECT
    shard_of(card_id) AS shard,
    format({card_location:String}, tagged(card_id)) AS location_key,
    format({card_last_ts:String}, tagged(card_id)) AS last_ts_key,
    concat(location_key, ', ', last_ts_key) AS keys,
    concat(
        if(located, '*10', '*8'), '\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n4\r\n',
        bulk(location_key), bulk(last_ts_key),
        bulk(format({card_seq:String}, tagged(card_id))), bulk(format({card_seeded:String}, tagged(card_id))),
        bulk(last_ts), if(located, concat(bulk(lat), bulk(lon)), '')
    ) AS commands
FROM card_location
