-- One row per entity: of each window the newest row, and of each feature the values or the rows that it is made of.
SELECT
    {columns}
FROM chosen
GROUP BY {keys}
