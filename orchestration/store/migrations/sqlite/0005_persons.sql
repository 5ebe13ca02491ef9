CREATE TABLE persons (
    tenant TEXT NOT NULL,
    name_sha256 BLOB NOT NULL,
    pseudonym TEXT NOT NULL,
    named_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name_sha256)
) STRICT, WITHOUT ROWID;
