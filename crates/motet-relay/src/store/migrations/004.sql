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
