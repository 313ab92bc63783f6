-- Whether the view of a snapshot has this name, which is that of its files and columns.
SELECT 1 FROM system.tables WHERE comment = {name:String}
