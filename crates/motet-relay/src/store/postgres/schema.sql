-- Format 1. Numbers count from 1; what is bytea is as it is on the wire.

CREATE TABLE motet (
    key text PRIMARY KEY,
    value bigint,
    name bytea
);
INSERT INTO motet (key, value) VALUES ('probe', 0), ('logs', 0);

-- A log and where it ends. Whatever changes a log changes this row, first of all.
CREATE TABLE log (
    id bigint PRIMARY KEY,
    account text NOT NULL,
    space bytea NOT NULL,
    head bigint NOT NULL,
    tag bytea NOT NULL,
    -- Goes up when entries leave: what was read of them before is not so any more.
    epoch bigint NOT NULL,
    -- What counts for the limits of the account.
    bytes bigint NOT NULL,
    documents bigint NOT NULL,
    UNIQUE (account, space)
);

-- The entries of logs. Of one that has left, id and tag stay, so that positions stay good; its kind is empty.
CREATE TABLE entry (
    log bigint NOT NULL,
    seq bigint NOT NULL,
    id bytea NOT NULL,
    tag bytea NOT NULL,
    document bytea NOT NULL,
    device bytea NOT NULL,
    kind bytea NOT NULL,
    suite smallint NOT NULL,
    payload bytea NOT NULL,
    size bigint NOT NULL,
    received_at bigint NOT NULL,
    -- By which entry, and when, in seconds since 1970.
    superseded_by bigint,
    superseded_at bigint,
    PRIMARY KEY (log, seq)
);
-- Not unique: what is erased may come again before all of it has left.
CREATE INDEX entry_id ON entry (log, id) WHERE kind <> '';
CREATE INDEX entry_document ON entry (log, document, seq) WHERE kind <> '';
CREATE INDEX entry_superseded ON entry (superseded_at) WHERE superseded_at IS NOT NULL AND kind <> '';
-- Payloads are compressed or sealed already.
ALTER TABLE entry ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Documents of which not all has left that an erasure is about; what stands before the erasure counts as erased all the same.
CREATE TABLE erasing (
    log bigint NOT NULL,
    document bytea NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (log, document)
);
