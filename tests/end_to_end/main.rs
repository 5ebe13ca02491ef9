//! The product end to end: the real `kirolinterd` and `kirolinter` as processes, on directories and ports of their own.

mod answers;
mod audit;
mod backfill;
mod backup;
mod bad_input;
mod bad_start;
mod commands;
mod doctor;
mod documents;
mod doors;
mod exporter;
mod faults;
mod folds;
#[path = "../../integrations/tests/history/forge.rs"]
#[expect(dead_code, clippy::expect_used, reason = "what a test cannot set up fails it; the tests of the crate use the rest")]
mod forge;
mod gates;
mod github;
#[path = "../../integrations/tests/history/github_world.rs"]
#[expect(clippy::expect_used, reason = "what a test cannot set up fails it")]
mod github_world;
#[path = "../../integrations/tests/history/gitlab_world.rs"]
mod gitlab_world;
mod golden;
mod history;
mod http;
mod imports;
mod kafka;
mod kill_nine;
mod outage;
mod outbox;
mod past;
mod persons;
mod platforms;
mod process;
mod reports;
mod restart;
mod roles;
mod s3;
mod server;
mod sources;
mod tenants;
mod tls;
mod turns;
