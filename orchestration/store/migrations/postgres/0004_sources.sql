CREATE TABLE sources (
    name TEXT NOT NULL PRIMARY KEY,
    platform TEXT NOT NULL,
    tenant TEXT NOT NULL,
    secret_file TEXT NOT NULL,
    previous_secret_file TEXT,
    token_file TEXT,
    api TEXT,
    added_at BIGINT NOT NULL
);
CREATE TABLE source_counts (
    name TEXT NOT NULL PRIMARY KEY,
    taken BIGINT NOT NULL,
    unread BIGINT NOT NULL,
    known BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    last_event TEXT NOT NULL,
    refused_at BIGINT NOT NULL,
    last_refusal TEXT NOT NULL
);
