-- Version 4. What one entry does to many others is done in steps; what is left of it is noted here.

-- Erasures of which not everything has left yet. What they are about is not read any more.
CREATE TABLE erasing (
  entry INTEGER PRIMARY KEY,         -- row id in `entry` of the erasure
  document BLOB NOT NULL
);

-- Snapshots of which not everything that they supersede is marked yet.
CREATE TABLE superseding (
  entry INTEGER PRIMARY KEY,         -- row id in `entry` of the snapshot
  done INTEGER NOT NULL              -- how many of the entries that it names have been looked for
);

-- What accounts have in their logs. Written now and then: after a crash it may be a little less than there is.
CREATE TABLE usage (
  account TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL,
  documents INTEGER NOT NULL         -- that there ever were
) WITHOUT ROWID;

INSERT INTO usage (account, bytes, documents)
  SELECT account, SUM(length(payload) + length(kind) + 100), COUNT(DISTINCT entry.document)
  FROM space JOIN entry ON entry.id >> 40 = space.id WHERE kind <> x'' GROUP BY account;
