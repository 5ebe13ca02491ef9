//! The time of a simulated world: it stands while anything can be done, and jumps to the next timer when nothing can.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Add;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kiro_ports::Clock;
use kiro_schemas::Micros;

/// A world that has not settled by then hangs.
const END: u64 = 3 * 3_600 * 1_000_000;

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::default();
}

/// The timers of the world of this thread, in microseconds since it began.
#[derive(Default)]
struct Wheel {
    now: u64,
    count: u64,
    timers: BTreeMap<(u64, u64), Waker>,
}

/// A point in the world's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Instant(u64);

impl Instant {
    pub(in super::super) fn now() -> Self {
        Self(WHEEL.with_borrow(|wheel| wheel.now))
    }

    pub(in super::super) fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(in super::super) fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        Self(self.0 + u64::try_from(after.as_micros()).expect("a short time"))
    }
}

struct Sleep {
    due: Instant,
    key: Option<(u64, u64)>,
}

pub(in super::super) fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
    Sleep { due: Instant::now() + time, key: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.due {
            return Poll::Ready(());
        }
        let due = self.due.0;
        let key = WHEEL.with_borrow_mut(|wheel| {
            let key = self.key.unwrap_or_else(|| {
                wheel.count += 1;
                (due, wheel.count)
            });
            wheel.timers.insert(key, context.waker().clone());
            key
        });
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // A world that is torn down at the end of its thread has no wheel any more.
            drop(WHEEL.try_with(|wheel| wheel.borrow_mut().timers.remove(&key)));
        }
    }
}

/// Goes on to the next timer. Called when there is nothing else to do.
pub(super) fn advance() {
    let next = WHEEL.with_borrow_mut(|wheel| {
        let ((due, _), waker) = wheel.timers.pop_first()?;
        wheel.now = wheel.now.max(due);
        assert!(wheel.now < END, "the world does not come to rest");
        Some(waker)
    });
    next.expect("somebody waits for time to pass").wake();
}

/// A new world begins on this thread.
pub(super) fn begin() {
    WHEEL.set(Wheel::default());
}

/// A clock that may be set.
#[derive(Debug, Default)]
pub(super) struct SimClock {
    ahead: AtomicI64,
}

impl SimClock {
    pub(super) fn set_ahead(&self, micros: i64) {
        self.ahead.store(micros, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Micros {
        let passed = WHEEL.with_borrow(|wheel| i64::try_from(wheel.now).expect("a short time"));
        Micros(1_780_000_000_000_000 + passed + self.ahead.load(Ordering::SeqCst))
    }
}
