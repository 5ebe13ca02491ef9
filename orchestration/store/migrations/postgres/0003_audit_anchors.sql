CREATE TABLE audit_anchors (
    topic TEXT NOT NULL,
    part BIGINT NOT NULL,
    row_offset BIGINT NOT NULL,
    chain TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (topic, part)
);
