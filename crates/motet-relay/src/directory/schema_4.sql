-- Format 4: what was done to accounts, and accounts that are to be erased.
CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  account TEXT NOT NULL,               -- the account that it was done to, or that owned the space; empty: one that was erased
  actor TEXT NOT NULL,                 -- `operator`, `account`, `relay`, or the id of a device
  action TEXT NOT NULL,
  subject TEXT NOT NULL,               -- id of a device, a key or a space
  member TEXT NOT NULL                 -- the other account, if one is concerned
) STRICT;
CREATE INDEX audit_account ON audit (account, number);
CREATE INDEX audit_member ON audit (member, number);
CREATE INDEX audit_at ON audit (at);

-- When it is erased.
ALTER TABLE account ADD COLUMN erase_at INTEGER;

-- Accounts that were erased. What a backup of before brings back is erased again.
CREATE TABLE erasure (
  hash BLOB PRIMARY KEY,               -- BLAKE3 of the name
  account TEXT,                        -- the name, until its logs have left
  at INTEGER NOT NULL                  -- when it was erased
) STRICT;

-- Spaces of such accounts whose logs are kept under another name, and leave too.
CREATE TABLE erasing_space (
  id BLOB PRIMARY KEY,
  log_of TEXT NOT NULL,                -- the account under which the log is kept
  at INTEGER NOT NULL
) STRICT;
