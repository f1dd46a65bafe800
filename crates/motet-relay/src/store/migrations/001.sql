-- Version 1. An entry's row id is (space << 40) | sequence number, so that a space's log lies together and in order.

CREATE TABLE space (
  id INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  uuid BLOB NOT NULL,
  head INTEGER NOT NULL DEFAULT 0,   -- last sequence number given out
  tag BLOB NOT NULL,                 -- tag of the position after it
  UNIQUE (account, uuid)
);

CREATE TABLE entry (
  id INTEGER PRIMARY KEY,
  entry BLOB NOT NULL,               -- entry id, 32 bytes
  tag BLOB NOT NULL,                 -- tag of the position after this entry
  document BLOB NOT NULL,
  device BLOB NOT NULL,
  kind BLOB NOT NULL,
  suite INTEGER NOT NULL,
  payload BLOB NOT NULL,
  received_at INTEGER NOT NULL       -- seconds since 1970
);

-- Drops duplicates.
CREATE TABLE entry_id (
  space INTEGER NOT NULL,
  entry BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (space, entry)
) WITHOUT ROWID;
