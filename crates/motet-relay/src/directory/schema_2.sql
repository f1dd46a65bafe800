-- Format 2: who people are at other services, invitations, and spaces whose owner can change.
CREATE TABLE identity (
  issuer TEXT NOT NULL,                -- `iss` of its tokens
  subject TEXT NOT NULL,               -- `sub`
  account TEXT REFERENCES account (name), -- NULL: nobody's, and nobody's again until somebody links it
  shown TEXT NOT NULL,                 -- an e-mail address or a name, for lists alone
  linked_at INTEGER NOT NULL,
  last_used_at INTEGER,
  PRIMARY KEY (issuer, subject)
) STRICT;

CREATE TABLE invite (
  hash BLOB PRIMARY KEY,               -- BLAKE3 of the code, which stands nowhere
  space BLOB NOT NULL REFERENCES shared_space (id),
  may_write INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  is_reusable INTEGER NOT NULL,
  used INTEGER NOT NULL DEFAULT 0      -- accounts that have joined with it
) STRICT;

-- An id that is not here is refused, so one that was removed need not be remembered.
DELETE FROM member WHERE space IN (SELECT id FROM shared_space WHERE removed_at IS NOT NULL);
DELETE FROM shared_space WHERE removed_at IS NOT NULL;
ALTER TABLE shared_space DROP COLUMN removed_at;

-- The account under which its log is kept, and for which it counts: whoever made it, also when another one owns it now.
ALTER TABLE shared_space ADD COLUMN log_of TEXT NOT NULL DEFAULT '';
UPDATE shared_space SET log_of = owner;
