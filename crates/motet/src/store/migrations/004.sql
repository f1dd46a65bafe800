-- Version 4. Undo goes from version to version; what was done before this version cannot be undone any more.

DROP TABLE undo;
ALTER TABLE change DROP COLUMN tx;

-- What this device did, in order: the transactions of apps, undos and redos. The latest of them are kept.
CREATE TABLE step (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,             -- 0: a transaction, 1: an undo, 2: a redo
  target INTEGER,                    -- of undo and redo: the transaction
  at INTEGER NOT NULL,
  label TEXT,                        -- the app's own, of the transaction
  message TEXT,
  documents BLOB NOT NULL            -- which documents, and their heads before and after
);

-- Versions that an undo or a redo has made exactly what an earlier version was.
CREATE TABLE same_version (
  document INTEGER NOT NULL,
  heads BLOB NOT NULL,
  earlier BLOB NOT NULL,
  step INTEGER NOT NULL,
  PRIMARY KEY (document, heads)
) WITHOUT ROWID;
CREATE INDEX same_version_step ON same_version (step);
