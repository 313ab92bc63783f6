-- One row per card: the time of its newest transaction, and where the latest one with coordinates was.
WITH placed AS (
    SELECT
        card_id,
        max(time) AS newest,
        -- One string per row, ordered as transactions are (big-endian time, then id) and ending in its coordinates: the
        -- greatest settles ties in a single pass. argMax of a tuple by (time, id) takes ten times as long, by such a
        -- string twice; by time alone it leaves ties to the order of threads. Two NULs end an id, one in it is written
        -- so that it comes after them: an id stays before another that it begins.
        maxIf(
            concat(
                sortable(time),
                replaceAll(transaction_id, '\0', '\0\xff'), '\0\0',
                reinterpretAsFixedString(lat), reinterpretAsFixedString(lon)
            ),
            isFinite(lat) AND isFinite(lon)
        ) AS place
    FROM transactions
    GROUP BY card_id
)
SELECT
    card_id,
    place != '' AS located,
    toString(millis(newest) / 1000) AS last_ts,
    toString(reinterpretAsFloat64(substring(place, -16, 8))) AS lat,
    toString(reinterpretAsFloat64(substring(place, -8))) AS lon
FROM placed
