-- Points counted in a grid over 99 % of either axis, so that a few far ones do not squeeze all others into a corner.
SELECT
    xs[1] AS west,
    if(xs[2] > west, xs[2], west + 1) AS east,
    ys[1] AS south,
    if(ys[2] > south, ys[2], south + 1) AS north,
    toUInt16(least((x - west) / (east - west) * {columns:UInt16}, {columns:UInt16} - 1)) AS column,
    toUInt16(least((y - south) / (north - south) * {rows:UInt16}, {rows:UInt16} - 1)) AS row,
    count() AS entities
FROM (
    SELECT
        x,
        y,
        quantilesExact(0.005, 0.995)(x) OVER () AS xs,
        quantilesExact(0.005, 0.995)(y) OVER () AS ys
    FROM points
)
WHERE x BETWEEN west AND east AND y BETWEEN south AND north
GROUP BY ALL
