-- The objects of a snapshot in S3, as they are now. Format One reads none of them.
SELECT DISTINCT _path AS path, _size AS size, toString(_time) AS written, _etag AS etag
FROM s3({pattern:String}, 'One')
ORDER BY path
