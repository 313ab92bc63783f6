-- Gold as the configuration maps it. No column of gold has one of the inner names: an alias with the name of a column
-- would come before that column, and an expression must see gold's own.
SELECT {others}{columns}
FROM (
    SELECT {others}{expressions}
    FROM {{database:Identifier}}.{{gold:Identifier}}
    WHERE (
{where}
    )
)
