CREATE TABLE tokens (
    name TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BYTEA NOT NULL UNIQUE,
    salt BYTEA NOT NULL,
    iterations BIGINT NOT NULL,
    salted_password BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE TABLE outbox (
    key TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    done_at BIGINT,
    reason TEXT
);
CREATE INDEX outbox_due ON outbox (state, next_at);
CREATE TABLE import_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    rows_done BIGINT NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT,
    error TEXT,
    updated_at BIGINT NOT NULL
);
CREATE INDEX import_jobs_newest ON import_jobs (tenant, updated_at);
CREATE TABLE settings (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
