-- What is united comes in several commands, so that each holds other clients up for a few milliseconds. What replaces a
-- key comes in one: Redis takes 1,048,576 arguments.
SELECT
    shard_of(_key_1) AS _shard,
{features}
FROM collected
