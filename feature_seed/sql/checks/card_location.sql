-- A card's newest time, number of transactions and last known place. As for card_history, rows of one time and id must
-- agree.
SELECT
    id,
    max(micros) AS newest,
    count() AS transactions,
    argMaxIf((latitude, longitude), (micros, number), isFinite(latitude) AND isFinite(longitude)) AS place,
    countIf(isFinite(latitude) AND isFinite(longitude)) > 0 AS located
FROM sampled
GROUP BY id
HAVING uniqExact(tuple(micros, number)) = uniqExact(tuple(micros, number, latitude, longitude))
