-- How a file begins, of whatever kind it is.
SELECT head
FROM {function}({{path:String}}, 'RowBinary', 'head FixedString(4)', 'none')
LIMIT 1
