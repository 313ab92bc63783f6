-- One file of a snapshot.
SELECT {columns}
FROM {function}(%(pattern)s, 'Parquet', %(structure)s, %(compression)s)
