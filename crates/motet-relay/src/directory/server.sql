-- The accounts of relays, as `schema.sql` and those behind it say for a file of one relay. Truth values are 0 and 1.
CREATE TABLE accounts (
    one boolean PRIMARY KEY CHECK (one),
    format bigint NOT NULL,
    -- Goes up with each write that others have to hear of.
    version bigint NOT NULL
);

CREATE TABLE account (
    name text COLLATE "C" PRIMARY KEY,
    created_at bigint NOT NULL
);

CREATE TABLE sign_in_key (
    hash bytea PRIMARY KEY,
    account text COLLATE "C" NOT NULL REFERENCES account (name),
    created_at bigint NOT NULL,
    expires_at bigint,
    is_reusable bigint NOT NULL,
    used bigint NOT NULL DEFAULT 0
);

CREATE TABLE device (
    key bytea PRIMARY KEY,
    account text COLLATE "C" NOT NULL REFERENCES account (name),
    id bytea NOT NULL,
    name text NOT NULL,
    platform text NOT NULL,
    version text NOT NULL,
    registered_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    revoked_at bigint
);
CREATE UNIQUE INDEX device_signed_in ON device (account, id) WHERE revoked_at IS NULL;

CREATE TABLE shared_space (
    id bytea PRIMARY KEY,
    name text NOT NULL,
    owner text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    log_of text COLLATE "C" NOT NULL
);

CREATE TABLE member (
    space bytea NOT NULL REFERENCES shared_space (id),
    account text COLLATE "C" NOT NULL REFERENCES account (name),
    may_write bigint NOT NULL,
    since bigint NOT NULL,
    PRIMARY KEY (space, account)
);

CREATE TABLE identity (
    issuer text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    account text COLLATE "C" REFERENCES account (name),
    shown text NOT NULL,
    linked_at bigint NOT NULL,
    last_used_at bigint,
    PRIMARY KEY (issuer, subject)
);

CREATE TABLE invite (
    hash bytea PRIMARY KEY,
    space bytea NOT NULL REFERENCES shared_space (id),
    may_write bigint NOT NULL,
    made_by text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    is_reusable bigint NOT NULL,
    used bigint NOT NULL DEFAULT 0
);

CREATE TABLE console_link (
    hash bytea PRIMARY KEY,
    account text COLLATE "C" REFERENCES account (name),
    device bytea,
    expires_at bigint NOT NULL
);
