-- Some entities, whose keys are looked at. Ids that are not text are left out: contract.py takes text.
SELECT DISTINCT {entity:Identifier} AS id
FROM transactions
WHERE isValidUTF8(id)
LIMIT 100
