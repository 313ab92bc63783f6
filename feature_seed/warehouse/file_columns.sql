-- A file's columns and their types, as ClickHouse infers them.
DESCRIBE {function}({{path:String}}, 'Parquet', 'auto', {{compression:String}})
