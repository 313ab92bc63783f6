-- EVALSHA script 2 history last_ts  <last_ts> <element>…
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    format({card_last_ts:String}, tagged(card_id)) AS last_ts_key,
    concat(history_key, ', ', last_ts_key) AS keys,
    concat(
        '*', toString(length(history) + 6), '\r\n$7\r\nEVALSHA\r\n', bulk({script:String}), '$1\r\n2\r\n',
        bulk(history_key), bulk(last_ts_key), bulk(last_ts),
        arrayStringConcat(arrayMap(element -> bulk(element), history))
    ) AS commands
FROM card_history
