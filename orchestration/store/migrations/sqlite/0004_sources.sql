CREATE TABLE sources (
    name TEXT NOT NULL PRIMARY KEY,
    platform TEXT NOT NULL,
    tenant TEXT NOT NULL,
    secret_file TEXT NOT NULL,
    previous_secret_file TEXT,
    token_file TEXT,
    api TEXT,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE source_counts (
    name TEXT NOT NULL PRIMARY KEY,
    taken INTEGER NOT NULL,
    unread INTEGER NOT NULL,
    known INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    last_event TEXT NOT NULL,
    refused_at INTEGER NOT NULL,
    last_refusal TEXT NOT NULL
) STRICT;
