-- Version 8. What another device has purged stays in the trash here for a time.

-- Documents that are purged, and whose content is still here.
CREATE TABLE leaving (
  document INTEGER PRIMARY KEY REFERENCES document(id),
  at INTEGER NOT NULL  -- when it goes, in milliseconds since 1970
);
