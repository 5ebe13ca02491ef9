//! How fast a payload becomes events, in CPU time, so that a busy machine does not change it much.

use kiro_integrations::platform;
use kiro_ports::Normaliser;

/// Fewest `workflow_run` payloads in a second of CPU time; without optimisation less is asked.
const FEWEST: f64 = if cfg!(debug_assertions) { 20_000.0 } else { 100_000.0 };

/// Seconds that this thread has had a CPU.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("a number") / 1e9
}

#[test]
fn a_workflow_run_is_read_in_ten_microseconds() {
    let github = platform("github").expect("a platform");
    // As it is sent: without spaces.
    let tree: serde_json::Value = serde_json::from_str(&crate::payload("github", "workflow_run.completed")).expect("JSON");
    let body = serde_json::to_vec(&tree).expect("JSON");
    let headers = crate::headers(github, "workflow_run");
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let (mut count, started) = (0_u32, cpu_seconds());
        while cpu_seconds() - started < 0.2 {
            for _ in 0..200 {
                let events = github.normalise(&headers, std::hint::black_box(&body)).expect("events");
                assert_eq!(std::hint::black_box(events).len(), 1);
                count += 1;
            }
        }
        best = best.max(f64::from(count) / (cpu_seconds() - started));
    }
    println!("{best:.0} workflow_run payloads of {} bytes in a second of CPU time", body.len());
    assert!(best >= FEWEST, "{best:.0} in a second, {FEWEST:.0} wanted");
}
