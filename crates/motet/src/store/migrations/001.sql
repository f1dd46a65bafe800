-- Version 1. `position` is a place in a remote's log, `at` and `*_at` are milliseconds since 1970.

-- Small facts about this replica: device id and name, the app's settings.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE space (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE);

CREATE TABLE remote (
  id INTEGER PRIMARY KEY,
  space INTEGER NOT NULL REFERENCES space (id),
  url TEXT NOT NULL,
  position BLOB,                     -- read up to here; NULL: from the start
  active INTEGER NOT NULL DEFAULT 0, -- 1: the one that the status speaks of
  reseed INTEGER NOT NULL DEFAULT 0, -- 1: the log was lost; what it lacks goes out again once it has been read
  last_synced_at INTEGER,
  last_error TEXT,                   -- JSON {code, message, at}; NULL after a complete round
  UNIQUE (space, url)
);

-- Devices of whom an entry has been seen.
CREATE TABLE device (id BLOB PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;

-- What the app declares about a collection, as JSON.
CREATE TABLE collection (name TEXT PRIMARY KEY, schema TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE document (
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- changes and words are filed under it: never used twice
  space INTEGER NOT NULL REFERENCES space (id),
  key BLOB NOT NULL UNIQUE,          -- the id on the wire
  collection TEXT NOT NULL,
  name TEXT NOT NULL,                -- the app's own id
  created_at INTEGER NOT NULL,
  last_synced_at INTEGER,
  UNIQUE (collection, name, space)
);

-- Original bytes of every change that is not part of a primary snapshot. The id is (document << 24) | number, so that
-- the changes of a document lie together and in order, and a commit touches one page.
CREATE TABLE change (
  id INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL,
  origin INTEGER,                    -- the remote it came from; NULL: made here
  tx INTEGER                         -- number of the transaction that made it here
);

-- Undos and redos: transaction `tx` took `target` back, or did it again.
CREATE TABLE undo (tx INTEGER PRIMARY KEY, target INTEGER NOT NULL, is_redo INTEGER NOT NULL);

-- Named states of all documents that were there.
CREATE TABLE restore_point (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL);
CREATE TABLE restore_point_document (
  point INTEGER NOT NULL REFERENCES restore_point (id),
  document INTEGER NOT NULL REFERENCES document (id),
  heads BLOB NOT NULL,
  PRIMARY KEY (point, document)
) WITHOUT ROWID;

CREATE TABLE snapshot (
  document INTEGER PRIMARY KEY REFERENCES document (id),
  bytes BLOB NOT NULL,
  upto INTEGER NOT NULL,             -- holds all changes of the document up to this change id
  is_primary INTEGER NOT NULL        -- 1: holds changes that are not in `change`; 0: a cache
);

-- What reads are served from. Rebuilt from the changes at any time.
CREATE TABLE projection (
  document INTEGER PRIMARY KEY REFERENCES document (id),
  collection TEXT NOT NULL,          -- as in `document`, so that lists and indexes need no join
  name TEXT NOT NULL,
  heads BLOB NOT NULL,               -- 32 bytes each, sorted
  deleted INTEGER NOT NULL,
  conflicts INTEGER NOT NULL,        -- open rows in `conflict`
  changes INTEGER NOT NULL,          -- numbers given out in `change`
  updated_at INTEGER NOT NULL,
  json TEXT NOT NULL,
  seq INTEGER NOT NULL,              -- grows with every write of any row: who asks what has changed asks from here
  purged INTEGER NOT NULL DEFAULT 0  -- 1: gone for good, only id and heads are left
);

CREATE INDEX projection_conflicts ON projection (document) WHERE conflicts > 0;
CREATE INDEX projection_seq ON projection (seq);
CREATE INDEX projection_name ON projection (collection, name) WHERE deleted = 0;

-- Documents whose words the full-text index does not know as they are now. The index of a collection is the table
-- "search:" and a hash of its name; it holds folded words and no text.
CREATE TABLE unindexed (document INTEGER PRIMARY KEY REFERENCES document (id));

-- Documents with local changes that `projection` does not show yet. A commit of an existing document writes its change
-- alone; its projection follows within moments, and before anything is read.
CREATE TABLE behind (
  document INTEGER PRIMARY KEY REFERENCES document (id),
  at INTEGER NOT NULL                -- when the first of these changes was made
);

-- Documents as they came, with the preview that came with them as projection: not merged here yet.
CREATE TABLE unmerged (
  document INTEGER PRIMARY KEY REFERENCES document (id),
  remote INTEGER NOT NULL REFERENCES remote (id)
);

-- Fields that stay on this device, as a JSON object. They are part of `projection.json` and of nothing else.
CREATE TABLE local_field (document INTEGER PRIMARY KEY REFERENCES document (id), json TEXT NOT NULL);

-- What the remote does not hold yet. A row is open (entry NULL) until it is frozen for its first send.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  remote INTEGER NOT NULL REFERENCES remote (id),
  document INTEGER NOT NULL REFERENCES document (id),
  op INTEGER NOT NULL,               -- 0 create, 1 update, 2 delete
  since INTEGER NOT NULL,
  first_change INTEGER NOT NULL,     -- local changes from this id on; 0: the whole document
  last_change INTEGER,
  entry BLOB,                        -- entry id
  device BLOB,
  kind BLOB,
  suite INTEGER,
  sealed BLOB,
  error TEXT                         -- JSON {code, message, at}: rejected for good, parked
);
CREATE UNIQUE INDEX outbox_open ON outbox (remote, document) WHERE entry IS NULL;
CREATE INDEX outbox_document ON outbox (document);

-- Every concurrent write that lost, once.
CREATE TABLE conflict (
  document INTEGER NOT NULL REFERENCES document (id),
  path TEXT NOT NULL,
  op TEXT NOT NULL,
  winner TEXT NOT NULL,
  loser TEXT NOT NULL,
  device BLOB,
  time INTEGER NOT NULL,             -- seconds since 1970, by the losing device's clock
  noticed_at INTEGER NOT NULL,
  settled_at INTEGER,
  PRIMARY KEY (document, path, op)
) WITHOUT ROWID;

-- Received and not applied, with the reason.
CREATE TABLE quarantine (
  id INTEGER PRIMARY KEY,
  remote INTEGER NOT NULL REFERENCES remote (id),
  document BLOB,                     -- the id on the wire
  hash BLOB NOT NULL,                -- of the change, or the entry id
  waits INTEGER NOT NULL,            -- 1: tried again when the document receives more
  reason TEXT NOT NULL,
  bytes BLOB,                        -- NULL: they had to make room, and are fetched again with the log
  at INTEGER NOT NULL,
  UNIQUE (document, hash)
);

-- Sync rounds.
CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  remote INTEGER NOT NULL REFERENCES remote (id),
  started_at INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  summary TEXT NOT NULL              -- JSON
);

-- Bytes sent and received, by days since 1970 (UTC).
CREATE TABLE traffic (day INTEGER PRIMARY KEY, up INTEGER NOT NULL, down INTEGER NOT NULL);

-- Collections that the user does not want synced at present.
CREATE TABLE excluded (collection TEXT PRIMARY KEY) WITHOUT ROWID;

INSERT INTO space (id, uuid) VALUES (1, x'00000000000000000000000000000000');
