-- Version 2. Compaction, and what was erased from a remote.

-- Documents that have had so many changes that their entries may be worth one snapshot.
CREATE TABLE compactable (document INTEGER PRIMARY KEY REFERENCES document (id));

-- Documents of which a remote was told to forget what it held: whoever sends of them next, sends the whole.
CREATE TABLE erased (
  remote INTEGER NOT NULL REFERENCES remote (id),
  document INTEGER NOT NULL REFERENCES document (id),
  PRIMARY KEY (remote, document)
) WITHOUT ROWID;
