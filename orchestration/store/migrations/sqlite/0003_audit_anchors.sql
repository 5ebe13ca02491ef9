CREATE TABLE audit_anchors (
    topic TEXT NOT NULL,
    part INTEGER NOT NULL,
    row_offset INTEGER NOT NULL,
    chain TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (topic, part)
) STRICT;
