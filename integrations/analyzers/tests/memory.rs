//! A file without measure is held in a bounded memory, and how fast it is read is told. An allocator counts here, so that these
//! tests stand alone.

#![expect(clippy::expect_used, reason = "a test")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufReader, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::count;
use kiro_analyzers::{Format, Limits};
use quick_xml::events::Event as Xml;

/// Counts what is held and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// What counts memory does it alone.
static ALONE: Mutex<()> = Mutex::new(());

#[expect(unsafe_code, reason = "an allocator that counts, in a test")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
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

/// The most bytes that were held during the work beyond those before it.
fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let done = work();
    (done, MOST.load(Ordering::Relaxed).saturating_sub(before))
}

/// A file that is made while it is read: a beginning, parts by their number, an end.
struct Made<F> {
    part: F,
    parts: usize,
    at: usize,
    left: Vec<u8>,
}

impl<F: FnMut(usize, &mut Vec<u8>)> Made<F> {
    fn new(parts: usize, part: F) -> BufReader<Self> {
        BufReader::with_capacity(64 << 10, Self { part, parts, at: 0, left: Vec::new() })
    }
}

impl<F: FnMut(usize, &mut Vec<u8>)> Read for Made<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left.is_empty() && self.at < self.parts {
            (self.part)(self.at, &mut self.left);
            self.at += 1;
        }
        let length = self.left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.left[..length]);
        self.left.drain(..length);
        Ok(length)
    }
}

/// A report as test runners write it, of about so many bytes; every 50th case fails and prints.
fn usual(parts: usize) -> impl FnMut(usize, &mut Vec<u8>) {
    move |at, out| {
        use std::io::Write as _;
        if at == 0 {
            out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"com.acme.shop.OrderTest\" tests=\"1\" timestamp=\"2026-11-23T09:00:00Z\">\n");
        }
        let case = format!(
            "  <testcase name=\"handles order number {at} of a customer &amp; more\" classname=\"com.acme.shop.OrderTest\" time=\"0.0{}\"",
            at % 100
        );
        let tail = if at.is_multiple_of(50) {
            format!(
                "{case}>\n    <failure message=\"expected {at}\" type=\"java.lang.AssertionError\">{}</failure>\n    <system-out><![CDATA[{}]]></system-out>\n  </testcase>\n",
                "\tat com.acme.shop.Order.total(Order.java:12)\n".repeat(20),
                "a line of a log > & <\n".repeat(200)
            )
        } else {
            format!("{case}/>\n")
        };
        out.write_all(tail.as_bytes()).expect("bytes");
        if at + 1 == parts {
            out.extend_from_slice(b"</testsuite>\n</testsuites>\n");
        }
    }
}

/// Reads `parts` cases and says how much memory that took.
fn held_of(parts: usize) -> (u64, usize) {
    let (counts, held) = most_held(|| count(Limits::default(), Format::Junit, &mut Made::new(parts, usual(parts))));
    let counts = counts.expect("a report");
    assert_eq!((counts.success + counts.failure, counts.failure), (parts as u64, parts.div_ceil(50) as u64));
    let bytes = (0..parts).map(|at| {
        let mut out = Vec::new();
        usual(parts)(at, &mut out);
        out.len() as u64
    });
    (bytes.sum(), held)
}

#[test]
fn a_long_report_is_held_in_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (bytes, held) = held_of(40_000);
    eprintln!("{} MB of JUnit: {} KiB held", bytes / 1_000_000, held >> 10);
    assert!(bytes > 8_000_000 && held < 4 << 20, "{bytes} bytes, {held} held");
    // One text of 64 MB, in CDATA and not: none of it is kept.
    for (open, close) in [("<system-out><![CDATA[", "]]></system-out>"), ("<failure>", "</failure>"), ("<!--", "-->")] {
        let parts = 64_002;
        let mut file = Made::new(parts, |at, out| match at {
            0 => out.extend_from_slice(format!("<testsuite><testcase name=\"a\">{open}").as_bytes()),
            64_001 => out.extend_from_slice(format!("{close}</testcase></testsuite>").as_bytes()),
            _ => out.extend_from_slice(&b"a log ]] &amp; & more\n".repeat(48)),
        });
        let (counts, held) = most_held(|| count(Limits::default(), Format::Junit, &mut file));
        assert_eq!(counts.expect("a report").events, 1);
        assert!(held < 1 << 20, "{open}: {held} held");
    }
}

/// However the rules of a scanner are spread over its extensions, and however long their names are, what is held of them is bounded.
#[test]
fn rules_without_measure_are_refused_in_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let short = "{\"rules\":[".to_owned() + &"{},".repeat(999) + "{}]},";
    let long = format!("{{\"name\":\"{0}\",\"rules\":[{{\"id\":\"{0}\"}}]}},", "x".repeat(1 << 20));
    for part in [&short, &long] {
        let parts = (64 << 20) / part.len();
        let mut file = Made::new(parts, |at, out| match at {
            0 => out.extend_from_slice(b"{\"version\":\"2.1.0\",\"runs\":[{\"tool\":{\"extensions\":["),
            _ if at + 1 == parts => out.extend_from_slice(b"{}],\"driver\":{\"name\":\"t\"}}}]}"),
            _ => out.extend_from_slice(part.as_bytes()),
        });
        let (counts, held) = most_held(|| count(Limits::default(), Format::Sarif, &mut file));
        match counts {
            Ok(_) => assert_eq!(part, &long, "64 MiB of empty rules are taken"),
            Err(error) => assert!(error.to_string().contains("too many or too long"), "{error}"),
        }
        assert!(held < 32 << 20, "{held} held");
    }
}

/// 200 MB and more: `cargo test -p kiro-analyzers --test generated -- --ignored --nocapture`.
#[test]
#[ignore = "takes long: run by hand, with the profile bench for figures"]
fn two_hundred_megabytes_are_held_in_64_mebibytes() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (bytes, held) = held_of(900_000);
    eprintln!("{} MB of JUnit: {} KiB held", bytes / 1_000_000, held >> 10);
    assert!(bytes > 200_000_000 && held < 64 << 20, "{bytes} bytes, {held} held");
    // As many cases as are taken, none of them longer than it must be.
    let limits = Limits::default();
    let mut short = Made::new(limits.cases + 2, |at, out| match at {
        0 => out.extend_from_slice(b"<testsuite>"),
        _ if at == limits.cases + 1 => out.extend_from_slice(b"</testsuite>"),
        _ => out.extend_from_slice(format!("<testcase name=\"{at}\"/>").as_bytes()),
    });
    let (counts, held) = most_held(|| count(limits, Format::Junit, &mut short));
    assert_eq!(counts.expect("a report").success, limits.cases as u64);
    eprintln!("{} short cases: {} KiB held", limits.cases, held >> 10);
    assert!(held < 64 << 20, "{held} held");
}

/// How long this thread has had a processor: what else the machine does changes it little.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds"))
}

/// The best of several times.
fn best(mut work: impl FnMut()) -> Duration {
    let time = |()| {
        let begin = processor_time();
        work();
        processor_time().saturating_sub(begin)
    };
    [(); 5].map(time).into_iter().min().expect("a time")
}

/// A bare walk of quick-xml over the same bytes beside ours, with all events made.
#[test]
fn it_is_told_how_fast_it_is() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (mut file, parts) = (Vec::new(), 60_000);
    for at in 0..parts {
        usual(parts)(at, &mut file);
    }
    let mut tags = 0_u64;
    let walk = best(|| {
        let (mut reader, mut buffer) = (quick_xml::Reader::from_reader(&file[..]), Vec::new());
        tags = 0;
        loop {
            match reader.read_event_into(&mut buffer).expect("well-formed") {
                Xml::Eof => break,
                Xml::Start(_) | Xml::Empty(_) => tags += 1,
                _ => {}
            }
            buffer.clear();
        }
    });
    let mut events = 0;
    let ours = best(|| {
        let mut input = BufReader::with_capacity(64 << 10, &file[..]);
        events = count(Limits::default(), Format::Junit, &mut input).expect("a report").events;
    });
    let rate = |time: Duration| file.len() as f64 / 1e6 / time.as_secs_f64();
    eprintln!(
        "{} MB, {tags} tags, {events} events: {:.0} MB a second of a processor; a bare walk of quick-xml {:.0}; ratio {:.2}",
        file.len() / 1_000_000,
        rate(ours),
        rate(walk),
        rate(ours) / rate(walk)
    );
    assert_eq!(events, parts as u64);
}
