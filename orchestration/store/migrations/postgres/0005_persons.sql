CREATE TABLE persons (
    tenant TEXT NOT NULL,
    name_sha256 BYTEA NOT NULL,
    pseudonym TEXT NOT NULL,
    named_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name_sha256)
);
