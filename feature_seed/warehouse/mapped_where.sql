-- Whether gold can be filtered by a condition. Nothing is read.
EXPLAIN
SELECT 1
FROM {{database:Identifier}}.{{gold:Identifier}}
WHERE (
{where}
)
