-- Version 8. What another device has purged stays in the trash here for a time, and a restore point tells what arrived after it.

-- Documents that are purged, and whose content is still here.
CREATE TABLE leaving (
  document INTEGER PRIMARY KEY REFERENCES document(id),
  at INTEGER NOT NULL  -- when it goes, in milliseconds since 1970
);

-- The latest document that was here when the point was made; NULL: not known.
ALTER TABLE restore_point ADD COLUMN last_document INTEGER;
