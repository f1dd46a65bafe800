-- Version 6. What has left a log says because of what: of such a row, `suite` is the sequence number of the erasure or of the snapshot.
-- So a row that has left can be told from one that was damaged and only looks like it. In `entry_of`, `superseded` is the sequence number
-- of the snapshot; 1, which no such snapshot has, if it is not known.

-- What has left before this version says that: -1.
UPDATE entry SET suite = -1 WHERE kind = x'';
