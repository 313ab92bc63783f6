-- The transactions that can be among a card's newest, its latest with coordinates, and how many it made in all, with
-- their digest: besides the latter none older than its n-th newest, ties at that time included.
-- Times alone are cheap to rank; on 500 transactions a card this leaves 2 % of the rows to collect and sort.
SELECT hashed.*, made, whole
FROM hashed
ALL INNER JOIN (
    SELECT
        card_id,
        count() AS made,
        sum(part) AS whole,
        -arrayElement(groupArraySorted({history_length:UInt16})(-time), -1) AS oldest,
        maxIf(time, isFinite(lat) AND isFinite(lon)) AS placed
    FROM hashed
    GROUP BY card_id
) AS cutoff USING (card_id)
WHERE time >= oldest OR (time = placed AND isFinite(lat) AND isFinite(lon))
