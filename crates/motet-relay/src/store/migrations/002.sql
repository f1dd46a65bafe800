-- Version 2. The entries of a document can be found, and those that a snapshot supersedes leave after a time.

-- Finds entries by document, and drops duplicates: an entry's id names its document. Eight bytes of the id tell the entries of a
-- document apart; where they do not, the whole ids are compared.
CREATE TABLE entry_of (
  space INTEGER NOT NULL,
  document BLOB NOT NULL,
  head BLOB NOT NULL,                -- first 8 bytes of the entry id
  seq INTEGER NOT NULL,
  superseded INTEGER NOT NULL DEFAULT 0, -- 1: it leaves in time, a snapshot has its changes
  PRIMARY KEY (space, document, head, seq)
) WITHOUT ROWID;

INSERT INTO entry_of (space, document, head, seq)
  SELECT id >> 40, document, substr(entry, 1, 8), id & 0xffffffffff FROM entry;

DROP TABLE entry_id;

-- Entries whose changes a later snapshot holds. When they have left, of a row in `entry` only id and tag remain: positions go on
-- to be known.
CREATE TABLE superseded (
  at INTEGER NOT NULL,               -- seconds since 1970
  entry INTEGER NOT NULL,            -- row id in `entry`
  PRIMARY KEY (at, entry)
) WITHOUT ROWID;
