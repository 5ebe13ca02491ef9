//! `kirolinter dead-letters replay`: page by page until the end. Interrupted, it is run again: what was appended is not again.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::args::Format;
use crate::http::Server;
use crate::import::counter;
use crate::print;

const COUNTS: [&str; 4] = ["replayed", "already", "empty", "lost"];

pub(crate) async fn replay(server: &Server, format: Format, reason: &str) -> Result<()> {
    let bar = counter(format)?;
    let (mut sums, mut after) = ([0_u64; 4], Value::Null);
    loop {
        let page = server.post("/api/v1/dead-letters/replay", &json!({"reason": reason, "after": after})).await.with_context(|| {
            format!("{} dead letters were appended again; run the command once more for the others", sums.first().unwrap_or(&0))
        })?;
        for (sum, name) in sums.iter_mut().zip(COUNTS) {
            *sum += page[name].as_u64().unwrap_or(0);
        }
        if let Some(of) = page["of"].as_u64() {
            bar.set_length(of);
        }
        bar.set_position(sums.iter().sum());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    bar.finish_and_clear();
    if format == Format::Text {
        return print::line(&told(sums));
    }
    let [replayed, already, empty, lost] = sums;
    print::json(&json!({"replayed": replayed, "already": already, "empty": empty, "lost": lost}))
}

fn told([replayed, already, empty, lost]: [u64; 4]) -> String {
    let mut text = format!("{replayed} dead letters were appended again");
    for (count, what) in [
        (already, "were before, and were left"),
        (empty, "have no bytes, so there is nothing to read in them"),
        (lost, "cannot be: their bytes are neither in the log nor in the quarantine of this server"),
    ] {
        if count > 0 {
            write!(text, "; {count} {what}").unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_not_done_is_said() {
        assert_eq!(super::told([0; 4]), "0 dead letters were appended again");
        let all = super::told([5, 1, 2, 3]);
        assert!(all.starts_with("5 dead letters were appended again; 1 were before") && all.contains("; 2 have no bytes"), "{all}");
        assert!(all.ends_with("; 3 cannot be: their bytes are neither in the log nor in the quarantine of this server"), "{all}");
    }
}
