-- One row per card: the time of its newest transaction, how many it made, and where the latest one with coordinates was.
WITH placed AS (
    SELECT
        card_id,
        max(time) AS newest,
        count() AS transactions,
        countIf(isFinite(lat) AND isFinite(lon)) > 0 AS located,
        -- Ordered by one string, big-endian time and then id, so that ties are settled in a single pass: argMax by a
        -- tuple that holds a string takes ten times as long, by time alone it leaves ties to the order of threads.
        argMaxIf(
            (lat, lon),
            concat(reverse(toString(reinterpretAsFixedString(bitXor(toUInt64(time), bitShiftLeft(1::UInt64, 63))))), transaction_id),
            isFinite(lat) AND isFinite(lon)
        ) AS place
    FROM transactions
    GROUP BY card_id
)
SELECT
    card_id,
    located,
    toString(intDiv(newest, 1000) / 1000) AS last_ts,
    toString(transactions) AS seq,
    toString(place.1) AS lat,
    toString(place.2) AS lon
FROM placed
