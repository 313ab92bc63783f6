-- The transactions of some entities. The hashes of these are written out: a URL may be too short for them, and a table
-- of them needs a right. Another entity with one of these hashes comes too.
SELECT *
FROM every
WHERE hash_of({entity:Identifier}) IN [hashes]
