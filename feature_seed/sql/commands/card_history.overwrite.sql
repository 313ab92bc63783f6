-- MULTI, DEL, RPUSH, MSET, EXEC: a reader never meets a list without its elements, or without its count.
SELECT
    shard_of(card_id) AS shard,
    format({card_history:String}, tagged(card_id)) AS history_key,
    format({card_seq:String}, tagged(card_id)) AS seq_key,
    format({card_seeded:String}, tagged(card_id)) AS seeded_key,
    concat(history_key, ', ', seq_key, ', ', seeded_key) AS keys,
    concat(
        '*1\r\n$5\r\nMULTI\r\n',
        '*2\r\n$3\r\nDEL\r\n', bulk(history_key),
        '*', toString(length(history) + 2), '\r\n$5\r\nRPUSH\r\n', bulk(history_key),
        arrayStringConcat(arrayMap(element -> bulk(element), history)),
        '*5\r\n$4\r\nMSET\r\n', bulk(seq_key), bulk(count), bulk(seeded_key), bulk(count),
        '*1\r\n$4\r\nEXEC\r\n'
    ) AS commands
FROM card_history
