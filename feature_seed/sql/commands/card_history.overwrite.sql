-- MULTI, DEL, RPUSH, EXEC: a reader never meets a list without its elements.
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    history_key AS keys,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        '*2\r\n$3\r\nDEL\r\n', bulk(history_key),
        '*', toString(length(history) + 2), '\r\n$5\r\nRPUSH\r\n', bulk(history_key),
        arrayStringConcat(arrayMap(element -> bulk(element), history)),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM card_history
