-- A card's newest transactions, newest first, and how many it made. Two rows of one time, id and amount that differ
-- otherwise have no order here: such a card is left out, and duplicate_transactions tells of it.
SELECT
    id,
    count() AS transactions,
    max(micros) AS newest,
    arraySlice(
        arrayReverseSort(groupArray(tuple(micros, number, paid, category, latitude, longitude))),
        1, {history_length:UInt16}
    ) AS latest
FROM sampled
GROUP BY id
HAVING uniqExact(tuple(micros, number, paid)) = uniqExact(tuple(micros, number, paid, category, latitude, longitude))
