-- The files of a snapshot on this machine, as they are now. Format One reads none of them.
SELECT DISTINCT _path AS path, _size AS size, toString(_time) AS written, '' AS etag
FROM file({pattern:String}, 'One')
ORDER BY path
