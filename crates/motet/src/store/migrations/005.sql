-- Version 5. What ends the process when it is opened is found out and set aside.

-- Large entries that are being opened, or that were when a process ended. A row goes in the transaction that takes the entry in.
CREATE TABLE opening (
  entry BLOB PRIMARY KEY,
  run BLOB,                          -- the process that is opening it, by a number drawn at its start; NULL: none
  deaths INTEGER NOT NULL DEFAULT 0  -- processes that ended meanwhile
) WITHOUT ROWID;
