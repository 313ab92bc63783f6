-- Hashes of the ids that gold has, in order: of all rows, those that are rejected or after the watermark too. They are in one
-- row, of which nothing comes if an answer ends early. Python has MD5 as well.
SELECT arraySort(groupUniqArray(halfMD5(assumeNotNull({entity:Identifier})))) AS hashes
FROM gold
