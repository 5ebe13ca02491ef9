//! The product end to end: the real `kirolinterd` and `kirolinter` as processes, on directories and ports of their own.

mod answers;
mod audit;
mod backup;
mod bad_input;
mod bad_start;
mod commands;
mod doctor;
mod documents;
mod doors;
mod exporter;
mod folds;
mod gates;
mod github;
mod golden;
mod history;
mod http;
mod imports;
mod kafka;
mod kill_nine;
mod outbox;
mod restart;
mod roles;
mod server;
mod tenants;
