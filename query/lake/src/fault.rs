//! A store that fails on purpose, the same way for the same seed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often what goes wrong: ratios from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Toxics {
    /// A put, get or delete fails and nothing was done.
    pub before: f64,
    /// A put is done and fails nevertheless: the answer is lost.
    pub after: f64,
    /// A put-if-absent says that the object exists, and nothing was done.
    pub conflict: f64,
    /// The body of an answer breaks off half-way.
    pub reset: f64,
    /// A listing does not show the newest object yet.
    pub stale: f64,
    /// A call takes [`Toxics::delay`] longer.
    pub slow: f64,
    /// See [`Toxics::slow`].
    pub delay: Duration,
    /// Puts find no space.
    pub full: bool,
}

#[derive(Debug)]
struct State {
    toxics: Toxics,
    random: StdRng,
    injected: u64,
    reads: u64,
}

/// A store that passes calls on to another one and lets some of them fail.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

enum Put {
    Pass,
    Fail(object_store::Error),
    Lose,
}

impl<S> FaultStore<S> {
    /// Puts toxics before a store.
    pub fn new(inner: S, seed: u64, toxics: Toxics) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { toxics, random: StdRng::seed_from_u64(seed), injected: 0, reads: 0 })) }
    }

    /// Changes the toxics; [`Toxics::default`] heals.
    pub fn set(&self, toxics: Toxics) {
        self.lock().toxics = toxics;
    }

    /// How many calls failed on purpose.
    pub fn injected(&self) -> u64 {
        self.lock().injected
    }

    /// How often it was asked for objects and listings.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delay(&self) -> Option<Duration> {
        let mut state = self.lock();
        let ratio = state.toxics.slow;
        (ratio > 0.0 && state.random.gen_bool(ratio)).then_some(state.toxics.delay)
    }

    fn judge_put(&self, location: &Path, create: bool) -> Put {
        let mut state = self.lock();
        let toxics = state.toxics;
        if toxics.full {
            state.injected += 1;
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Put::Fail(object_store::Error::Generic { store: "FaultStore", source: source.into() });
        }
        let dice: f64 = state.random.r#gen();
        let verdict = if dice < toxics.before {
            Put::Fail(injected("503 before it was applied"))
        } else if dice < toxics.before + toxics.after {
            Put::Lose
        } else if create && dice < toxics.before + toxics.after + toxics.conflict {
            Put::Fail(object_store::Error::AlreadyExists { path: location.to_string(), source: "409, not applied".into() })
        } else {
            Put::Pass
        };
        state.injected += u64::from(!matches!(verdict, Put::Pass));
        verdict
    }

    /// Whether something happens that does so with this ratio.
    fn strikes(&self, ratio: impl Fn(&Toxics) -> f64) -> bool {
        self.lock().strikes(ratio)
    }

    fn judge(&self, failure: &'static str) -> Result<()> {
        self.lock().judge(failure)
    }
}

impl State {
    fn strikes(&mut self, ratio: impl Fn(&Toxics) -> f64) -> bool {
        let ratio = ratio(&self.toxics);
        let strikes = ratio > 0.0 && self.random.gen_bool(ratio);
        self.injected += u64::from(strikes);
        strikes
    }

    fn judge(&mut self, failure: &'static str) -> Result<()> {
        if self.strikes(|toxics| toxics.before) { Err(injected(failure)) } else { Ok(()) }
    }
}

/// The answer with half of its body, and then an error.
async fn broken_off(whole: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) = (whole.meta.clone(), whole.range.clone(), whole.attributes.clone());
    let bytes = whole.bytes().await?;
    let half = bytes.slice(..bytes.len() / 2);
    let payload = GetResultPayload::Stream(stream::iter([Ok(half), Err(injected("connection reset"))]).boxed());
    Ok(GetResult { payload, meta, range, attributes })
}

/// A listing without the object that comes last.
fn without_newest(all: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let rest = async move {
        let mut all: Vec<ObjectMeta> = all.try_collect().await?;
        all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        drop(all.pop());
        Ok::<_, object_store::Error>(stream::iter(all.into_iter().map(Ok)))
    };
    stream::once(rest).try_flatten().boxed()
}

fn injected(what: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "FaultStore", source: what.into() }
}

impl<S: fmt::Display> fmt::Display for FaultStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for FaultStore<S> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if let Some(delay) = self.delay() {
            tokio::time::sleep(delay).await;
        }
        match self.judge_put(location, matches!(opts.mode, PutMode::Create)) {
            Put::Pass => self.inner.put_opts(location, payload, opts).await,
            Put::Fail(error) => Err(error),
            Put::Lose => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(injected("time-out after it was applied"))
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.lock().reads += 1;
        self.judge("503 on reading")?;
        let whole = self.inner.get_opts(location, options).await?;
        if self.strikes(|toxics| toxics.reset) { broken_off(whole).await } else { Ok(whole) }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let state = Arc::clone(&self.state);
        let judged = locations.map(move |location| {
            let location = location?;
            state.lock().unwrap_or_else(PoisonError::into_inner).judge("503 on deleting")?;
            Ok(location)
        });
        self.inner.delete_stream(judged.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lock().reads += 1;
        let all = self.inner.list(prefix);
        if self.strikes(|toxics| toxics.stale) { without_newest(all) } else { all }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
