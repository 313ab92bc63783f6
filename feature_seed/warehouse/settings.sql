-- The user's settings of these names, and what happens at limits: one row, so that a profile which cuts results cannot cut it.
SELECT groupArray(name) AS names, groupArray(value) AS settings, groupArray(readonly) AS fixed
FROM system.settings
WHERE name IN {names:Array(String)} OR name LIKE '%\_overflow\_mode%'
