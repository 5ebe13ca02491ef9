//! The engine in simulated worlds: the real committers on a store that fails, processes that die at named points, a log
//! that is shared, trimmed and recreated. A ledger of what was fed is the oracle; a world is a function of its seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kiro_ports::View;

mod crash;
mod fold;
mod lake;
mod ledger;
mod log;
mod store;
pub(super) mod time;
mod witness;
mod world;

use crash::CrashPoint;

const WORLDS: u64 = 200;

/// Looks at each view before it is published.
pub(super) struct Watcher(Box<dyn Fn(&View) + Send + Sync>);

impl Watcher {
    pub(super) fn look(&self, view: &View) {
        (self.0)(view);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// The seeds to live through: one, if the environment names it, to look into a failure.
#[expect(clippy::disallowed_methods, reason = "a test that is asked for one seed")]
fn seeds() -> std::ops::Range<u64> {
    let named = std::env::var("KIRO_SIM_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    named.map_or(0..WORLDS, |seed| seed..seed + 1)
}

#[test]
fn whatever_dies_nothing_is_lost_and_nothing_stands_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = seeds();
    let (next, told) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let live = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| seeds.contains(seed)) {
            let world = world::live(seed, folder.path());
            told.lock().expect("no world failed").push(world);
        }
    };
    std::thread::scope(|scope| {
        for worker in [scope.spawn(live), scope.spawn(live)] {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let told = told.into_inner().expect("no world failed");
    let mut struck = BTreeMap::<CrashPoint, u32>::new();
    for (point, count) in told.iter().flat_map(|world| &world.struck) {
        *struck.entry(*point).or_default() += count;
    }
    let sum = |of: fn(&world::Told) -> usize| told.iter().map(of).sum::<usize>();
    let (rows, views, repeats) = (sum(|w| w.rows), sum(|w| w.views), sum(|w| w.repeats));
    let (gaps, recreated) = (sum(|w| w.gaps), sum(|w| w.recreated));
    let faults: u64 = told.iter().map(|w| w.faults).sum();
    println!("{} worlds, {rows} rows, {views} views, {repeats} repeats, {faults} faults, {gaps} gaps, {recreated} recreated", told.len());
    println!("deaths: {struck:?}");
    if told.len() > 1 {
        let missed: Vec<_> = CrashPoint::ALL.iter().filter(|point| !struck.contains_key(point)).collect();
        assert!(missed.is_empty(), "nobody died at {missed:?}");
        assert!(faults > 100 && gaps > 10 && recreated > 5 && repeats > 100, "the worlds are too kind");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..8 {
        let live = || std::thread::scope(|scope| scope.spawn(|| world::live(seed, folder.path()).trace).join().expect("it lives"));
        let (first, second) = (live(), live());
        let other = first.iter().zip(&second).find(|(a, b)| a != b);
        assert!(other.is_none() && first.len() == second.len(), "seed {seed}: {other:?}, {} and {} lines", first.len(), second.len());
    }
}
