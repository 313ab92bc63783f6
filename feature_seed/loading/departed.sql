-- Sorted hashes of gold's ids: of all rows, rejected rows and rows after the watermark too. The hashes are in one row,
-- so that none comes if an answer ends early. Python has MD5 as well.
SELECT arraySort(groupUniqArray(halfMD5(assumeNotNull({entity:Identifier})))) AS hashes
FROM gold
