-- What holds for every query of embedded ClickHouse.
SET
    -- NULL in a column that had none when the file was looked at is an error, and no zero.
    input_format_null_as_default = 0,
    -- Each thread more that parses holds row groups, 100 MB at a million rows each, and is no faster on two cores.
    max_parsing_threads = 1,
    -- Each thread more groups in a table of its own. On two cores, where the figures are from, this is what there is.
    max_threads = 2,
    -- Types are those of the file as it is now, and values those in the file: a directory called card_id=7 holds no card.
    schema_inference_use_cache_for_file = 0,
    schema_inference_use_cache_for_s3 = 0,
    use_hive_partitioning = 0,
    -- An object without content is a file that is damaged, as it is on a disk.
    s3_skip_empty_files = 0,
    -- Instead of 500, which take hours where no server is: this takes 10 s, and the step is tried again.
    s3_retry_attempts = 5,
    -- The view over a snapshot names its files.
    max_query_size = 100000000
