-- Version 6. Where the latest wins, what arrives late of a purged document is judged without its content.

-- When purged documents were deleted, by the changes that deleted them.
CREATE TABLE grave (
  document INTEGER PRIMARY KEY REFERENCES document(id),
  at INTEGER NOT NULL  -- milliseconds since 1970
);
