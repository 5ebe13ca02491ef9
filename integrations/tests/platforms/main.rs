//! What becomes of the payloads of all platforms. `<platform>/<event>.<example>.json` is one that the platform sends.

#![expect(clippy::expect_used, clippy::panic, reason = "what a test cannot set up fails it")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiro_integrations::{Platform, platform};
use kiro_ports::{Headers, Normaliser};
use kiro_schemas::Event;

mod coverage;
mod github;
mod gitlab;
mod golden;
mod order;
mod secrets;
mod signatures;
mod speed;

/// One payload of a platform.
struct Payload {
    platform: &'static Platform,
    /// What the platform calls the event.
    event: String,
    /// `<event>.<example>`.
    name: String,
    body: Vec<u8>,
}

impl Payload {
    fn events(&self) -> Vec<Event<'_>> {
        events(self.platform, &self.event, &self.body)
    }
}

fn folder(platform: &Platform) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(platform.name)
}

fn headers(platform: &Platform, event: &str) -> Headers {
    platform.event_header.map(|name| (name.to_owned(), Bytes::from(event.to_owned()))).into_iter().collect()
}

fn events<'p>(platform: &Platform, event: &str, body: &'p [u8]) -> Vec<Event<'p>> {
    platform.normalise(&headers(platform, event), body).unwrap_or_else(|error| panic!("{} {event}: {error}", platform.name))
}

/// The JSON files of a folder, in order.
fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// The payloads of a platform that lie beside the tests.
fn payloads(platform: &'static Platform) -> Vec<Payload> {
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let named = || name.split('.').next().expect("an event").replace('-', " ");
        let event = platform.event_header.map(|_| named()).unwrap_or_default();
        Payload { platform, event, name, body: std::fs::read(&path).expect("a payload") }
    };
    json_files(&folder(platform)).into_iter().map(read).collect()
}

/// One of the payloads that lie beside the tests.
fn payload(platform_name: &str, name: &str) -> String {
    let platform = platform(platform_name).expect("a known platform");
    std::fs::read_to_string(folder(platform).join(format!("{name}.json"))).expect("a payload")
}
