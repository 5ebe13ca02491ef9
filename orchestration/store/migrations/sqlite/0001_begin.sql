CREATE TABLE tokens (
    name TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    salt BLOB NOT NULL,
    iterations INTEGER NOT NULL,
    salted_password BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE TABLE outbox (
    key TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    done_at INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX outbox_due ON outbox (state, next_at);
CREATE TABLE import_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    rows_done INTEGER NOT NULL,
    bytes_done INTEGER NOT NULL,
    bytes_total INTEGER,
    error TEXT,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX import_jobs_newest ON import_jobs (tenant, updated_at);
CREATE TABLE settings (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
