-- MULTI, HSET or DEL, SET, EXEC: a reader never meets a location without its time.
SELECT
    shard_of(card_id) AS shard,
    format({card_location:String}, tagged(card_id)) AS location_key,
    format({card_last_ts:String}, tagged(card_id)) AS last_ts_key,
    concat(location_key, ', ', last_ts_key) AS keys,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        if(
            located,
            concat('*6\r\n$4\r\nHSET\r\n', bulk(location_key), '$3\r\nlat\r\n', bulk(lat), '$3\r\nlon\r\n', bulk(lon)),
            concat('*2\r\n$3\r\nDEL\r\n', bulk(location_key))
        ),
        '*3\r\n$3\r\nSET\r\n', bulk(last_ts_key), bulk(last_ts),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM card_location
