-- One row per card: its newest transactions as JSON objects, ordered by (time, transaction_id), and how many it made.
WITH
    -- One array per column. groupArray drops NULLs and would shift an array against the others: none may reach it.
    collected AS (
        SELECT
            card_id,
            greatest(count(), any(made)) AS transactions,
            groupArray(time) AS times,
            groupArray(transaction_id) AS ids,
            groupArray(ifNull(toJSONString(merchant_category), 'null')) AS categories,
            groupArray(amount) AS amounts,
            groupArray(lat) AS lats,
            groupArray(lon) AS lons
        FROM recent
        GROUP BY card_id
    ),
    ordered AS (
        SELECT
            *,
            arraySlice(
                -- The rest only where a transaction is there twice: so that a second run cuts and writes the same.
                arraySort(
                    (i, time, id, amount, category, lat, lon) -> (time, id, amount, category, lat, lon),
                    arrayEnumerate(times), times, ids, amounts, categories, lats, lons
                ),
                -{history_length:UInt16}
            ) AS positions
        FROM collected
    )
-- JSON is written after the cut, and only strings go through toJSONString: a named tuple costs twice as much. JSON is
-- UTF-8: bytes that are none become U+FFFD, at once for the whole element, 2 % of the time.
SELECT
    card_id,
    toString(transactions) AS count,
    arrayMap(
        i -> toValidUTF8(concat(
            '{"transaction_id":', toJSONString(ids[i]),
            ',"merchant_category":', categories[i],
            ',"amount":', toString(amounts[i]),
            ',"timestamp":"', replaceOne(toString(fromUnixTimestamp64Milli(millis(times[i]), 'UTC')), ' ', 'T'),
            '+00:00","location_lat":', if(isFinite(lats[i]), toString(lats[i]), 'null'),
            ',"location_long":', if(isFinite(lons[i]), toString(lons[i]), 'null'),
            '}'
        )),
        if({newest_first:Bool}, arrayReverse(positions), positions)
    ) AS history
FROM ordered
