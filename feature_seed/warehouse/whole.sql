-- `limit` and `offset` of a profile cut every result and show in no table; whoever has them and may not change them is
-- refused this.
SELECT 1
SETTINGS limit = 0, offset = 0
