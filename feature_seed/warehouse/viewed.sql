-- Whether the view of these files and columns is there: its comment is their hash.
SELECT 1 FROM system.tables WHERE comment = {content:String}
