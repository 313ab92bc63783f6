-- One row per customer: the Welford state of its amounts.
-- Sorted before they are summed: threads collect them in any order, and a second run must give the same bytes.
-- Two passes over the array (mean, then deviations) keep the digits of M2 that varPop cancels, at the cost of varPopStable.
WITH
    collected AS (
        SELECT
            customer_id,
            arraySort(groupArray(amount)) AS amounts,
            toInt64(sum(part) + {layout:UInt64}) AS summed,
            max(time) AS newest
        FROM hashed
        GROUP BY customer_id
    ),
    summed AS (
        SELECT
            customer_id,
            summed,
            newest,
            length(amounts) AS transactions,
            arrayReduce('sumKahan', amounts) / transactions AS average,
            arrayReduce('sumKahan', arrayMap(amount -> (amount - average) * (amount - average), amounts)) AS squares
        FROM collected
    )
SELECT
    customer_id,
    toString(transactions) AS count,
    toString(summed) AS digest,
    toString(millis(newest) / 1000) AS last_ts,
    toString(average) AS mean,
    toString(squares) AS m2
FROM summed
