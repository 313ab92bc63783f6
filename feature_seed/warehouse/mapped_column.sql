-- The type of an expression over gold. Nothing is read, and an aggregate is an error: there may be none in WHERE.
DESCRIBE (
    SELECT (
{expression}
    ) AS {name}
    FROM {{database:Identifier}}.{{gold:Identifier}}
    WHERE isNull({name})
)
