-- Of all transactions those of some entities. Their hashes are written out: a URL may be too short for them, and a
-- table of them needs a right. Another entity with one of the hashes comes with them.
SELECT *
FROM every
WHERE hash_of({entity:Identifier}) IN [hashes]
