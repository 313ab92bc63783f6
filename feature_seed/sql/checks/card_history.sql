-- A card's newest transactions, newest first, and how many it made. Two rows of one time and id that differ have no
-- order: such a card is left out here, and duplicate_transactions tells of it.
SELECT
    id,
    count() AS transactions,
    arraySlice(
        arrayReverseSort(groupArray(tuple(micros, number, category, paid, latitude, longitude))),
        1, {history_length:UInt16}
    ) AS latest
FROM sampled
GROUP BY id
HAVING uniqExact(tuple(micros, number)) = uniqExact(tuple(micros, number, category, paid, latitude, longitude))
