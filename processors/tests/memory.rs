//! What a pushed commit costs while it is kept. An allocator counts here, so that this test stands alone.

#![expect(clippy::expect_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kiro_ports::Folding as _;
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};
use kiro_tables::{EventRows, Stamp, Table};

/// Counts what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that counts, in a test")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COMMITS: i64 = 40_000;
/// 2026-07-01.
const NOW: i64 = 1_782_864_000_000_000;

/// What is held after so many pushed commits of a branch; without a hash of theirs they are nothing that a request could begin with.
fn held(has_hash: bool) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let (mut folds, _) = Processors::new(FoldConfig { recent_subjects: 1_000_000, ..FoldConfig::default() }).expect("folds");
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    for part in 0..COMMITS / 1_000 {
        let mut rows = EventRows::default();
        for number in part * 1_000..(part + 1) * 1_000 {
            let (sha, time) = (format!("{:040x}", number * 7_919), Micros(NOW - number * 60_000_000));
            let mut event = Event::new(Subject::Change, Transition::Created, "https://ci/shop", sha.clone(), time);
            event.set("branch", Value::text("work"));
            event.set(if has_hash { "commit_sha" } else { "title" }, Value::text(sha));
            rows.push(&event, Stamp { tenant: &tenant, recorded_at: time, at: &at, offset: 0 }).expect("a row");
        }
        for (name, batch) in rows.finish().expect("batches") {
            folds.apply(Table::find(name).expect("a table"), &batch).expect("applied");
        }
    }
    HELD.load(Ordering::Relaxed) - before
}

#[test]
fn a_commit_of_a_branch_takes_less_than_half_a_kilobyte() {
    let each = held(true).saturating_sub(held(false)) / usize::try_from(COMMITS).expect("a number");
    eprintln!("a commit of a branch takes {each} bytes");
    assert!((200..512).contains(&each), "{each} bytes");
}
