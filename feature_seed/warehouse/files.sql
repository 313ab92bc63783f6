-- Files of a snapshot that have the same types. What else the pattern matches is not opened.
SELECT {columns}
FROM {function}(%(pattern)s, 'Parquet', %(structure)s, %(compression)s)
WHERE _path IN %(paths)s
