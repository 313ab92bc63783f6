-- The files of a snapshot as they are now, which are also its identity. Format One reads none of them.
SELECT DISTINCT _path AS path, _size AS size, toString(_time) AS written, {etag} AS etag
FROM {function}({{pattern:String}}, 'One')
ORDER BY path
