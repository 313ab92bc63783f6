-- Gold as the configuration maps it. The inner names are nobody's: an expression sees gold's own columns, since an alias
-- that is called like one of them would come before it.
SELECT {others}{columns}
FROM (
    SELECT {others}{expressions}
    FROM {{database:Identifier}}.{{gold:Identifier}}
    WHERE (
{where}
    )
)
