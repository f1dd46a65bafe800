-- Accounts, the keys that devices sign in with, and the devices themselves. Times in milliseconds since 1970.
CREATE TABLE account (
  name TEXT PRIMARY KEY,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sign_in_key (
  hash BLOB PRIMARY KEY,               -- BLAKE3 of the key, which stands nowhere
  account TEXT NOT NULL REFERENCES account (name),
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  is_reusable INTEGER NOT NULL,
  used INTEGER NOT NULL DEFAULT 0      -- devices that have signed in with it
) STRICT;

CREATE TABLE device (
  key BLOB PRIMARY KEY,                -- the public key that it proves to have
  account TEXT NOT NULL REFERENCES account (name),
  id BLOB NOT NULL,
  name TEXT NOT NULL,
  platform TEXT NOT NULL,
  version TEXT NOT NULL,
  registered_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;

-- A device that signs in again has one key that counts.
CREATE UNIQUE INDEX device_signed_in ON device (account, id) WHERE revoked_at IS NULL;

-- Spaces that accounts share. Every other one is the own one of whoever names it.
CREATE TABLE shared_space (
  id BLOB PRIMARY KEY,                 -- `shared` and 10 random bytes
  name TEXT NOT NULL,
  owner TEXT NOT NULL,                 -- the account that its log belongs to
  created_at INTEGER NOT NULL,
  removed_at INTEGER
) STRICT;

CREATE TABLE member (
  space BLOB NOT NULL REFERENCES shared_space (id),
  account TEXT NOT NULL REFERENCES account (name),
  may_write INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (space, account)
) STRICT;
