-- A file's columns that hold a time of day.
SELECT column.name
FROM {function}({{path:String}}, 'ParquetMetadata', 'auto', {{compression:String}})
ARRAY JOIN columns AS column
WHERE column.logical_type LIKE 'Time(%'
