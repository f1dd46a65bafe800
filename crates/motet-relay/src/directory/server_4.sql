-- What format 4 adds, see `schema_4.sql`.
CREATE TABLE audit (
    number bigint PRIMARY KEY,
    at bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    member text COLLATE "C" NOT NULL
);
CREATE INDEX audit_account ON audit (account, number);
CREATE INDEX audit_member ON audit (member, number);
CREATE INDEX audit_at ON audit (at);

ALTER TABLE account ADD COLUMN erase_at bigint;

CREATE TABLE erasure (
    hash bytea PRIMARY KEY,
    account text COLLATE "C",
    at bigint NOT NULL
);

CREATE TABLE erasing_space (
    id bytea PRIMARY KEY,
    log_of text COLLATE "C" NOT NULL,
    at bigint NOT NULL
);
