-- Version 6. Where the latest wins, what arrives late of a purged document is judged without its content.

-- When purged documents were deleted, by the changes that deleted them.
CREATE TABLE grave (
  document INTEGER PRIMARY KEY REFERENCES document(id),
  at INTEGER NOT NULL  -- milliseconds since 1970
);

-- 1: of a purged document, and brings nothing of it back. Nobody misses it, and it goes after a time.
ALTER TABLE quarantine ADD COLUMN dormant INTEGER NOT NULL DEFAULT 0;
