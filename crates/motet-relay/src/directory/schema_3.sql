-- Format 3: links with which people sign in to the console.
CREATE TABLE console_link (
  hash BLOB PRIMARY KEY,               -- BLAKE3 of the secret in the link, which stands nowhere
  account TEXT REFERENCES account (name), -- NULL: the operator
  device BLOB,                         -- the key of the device that made it; NULL: the operator made it
  expires_at INTEGER NOT NULL
) STRICT;
