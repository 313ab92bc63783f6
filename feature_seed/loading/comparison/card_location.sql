-- A card's newest time, number of transactions and last known place. Rows of one time and id must agree on it, else the
-- card is left out.
SELECT
    id,
    max(micros) AS newest,
    count() AS transactions,
    argMaxIf((latitude, longitude), (micros, number), isNotNull(latitude) AND isNotNull(longitude)) AS place,
    countIf(isNotNull(latitude) AND isNotNull(longitude)) > 0 AS located
FROM sampled
GROUP BY id
HAVING uniqExact(tuple(micros, number)) = uniqExact(tuple(micros, number, latitude, longitude))
