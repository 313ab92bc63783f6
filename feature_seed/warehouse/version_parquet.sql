-- A snapshot's identity: its files. Format One reads none of them.
SELECT DISTINCT _path, _size, toString(_time)
FROM file({snapshot:String}, 'One')
ORDER BY _path
