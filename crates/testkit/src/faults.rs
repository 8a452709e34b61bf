//! An object store that fails on purpose.
//!
//! A test scripts faults (the n-th operation, of some kind, on some paths, once or from then on,
//! before or after it takes effect), or lets a seed choose them. Operations are counted, so that a
//! loop can make the 1st, 2nd, 3rd … fail until there is none left to fail:
//!
//! ```
//! # use std::sync::Arc;
//! # use tidelog_storage::object_store::{memory::InMemory, ObjectStoreExt, path::Path};
//! # use tidelog_testkit::{Fault, FaultError, FaultStore};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! for n in 1.. {
//!     let store = FaultStore::new(Arc::new(InMemory::new()));
//!     store.inject(Fault::new(FaultError::Generic).nth(n));
//!     let put = store.put(&Path::from("a"), "x".into()).await;
//!     let got = store.get(&Path::from("a")).await;
//!     if store.injected() == 0 {
//!         assert!(put.is_ok() && got.is_ok());
//!         break;
//!     }
//!     assert!(put.is_err() || got.is_err());
//! }
//! # }
//! ```

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidelog_storage::counting::Operation;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Semaphore;

const STORE: &str = "FaultStore";

/// What a failing operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// Something that tells nothing, such as a connection that broke.
    Generic,
    /// The object is not there.
    NotFound,
    /// The object is there already.
    AlreadyExists,
    /// The caller may not do that; also what a read-only directory answers.
    PermissionDenied,
    /// The local operating system's error of this number, such as 28 (no space left).
    Os(i32),
    /// None: the process aborts there, as if it had been killed.
    Abort,
}

impl FaultError {
    /// The errors that differ in what they tell a caller.
    pub const ALL: [Self; 5] =
        [Self::Generic, Self::NotFound, Self::AlreadyExists, Self::PermissionDenied, Self::Os(28)];

    fn make(self, path: &str) -> Error {
        let path = path.to_owned();
        match self {
            Self::Generic => Error::Generic { store: STORE, source: "injected fault".into() },
            Self::NotFound => Error::NotFound { path, source: "injected fault".into() },
            Self::AlreadyExists => Error::AlreadyExists { path, source: "injected fault".into() },
            Self::PermissionDenied => {
                Error::PermissionDenied { path, source: "injected fault".into() }
            }
            Self::Os(code) => Error::Generic {
                store: STORE,
                source: Box::new(io::Error::from_raw_os_error(code)),
            },
            Self::Abort => std::process::abort(),
        }
    }
}

/// When the fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The operation does not take effect.
    Before,
    /// It takes effect, and its answer is lost.
    After,
    /// Its answer is lost, and it takes effect so much later (puts only; others as `Before`).
    Later(Duration),
}

/// One fault of a script.
#[derive(Debug, Clone)]
#[must_use]
pub struct Fault {
    error: FaultError,
    moment: Moment,
    operation: Option<Operation>,
    path: Option<String>,
    nth: u64,
    for_good: bool,
}

impl Fault {
    /// The first operation fails once, with `error`, without taking effect.
    pub fn new(error: FaultError) -> Self {
        Self { error, moment: Moment::Before, operation: None, path: None, nth: 1, for_good: false }
    }

    /// Only operations of this kind count and fail. Default: all.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only operations whose path holds `part` count and fail. Default: all.
    pub fn at_path(mut self, part: impl Into<String>) -> Self {
        self.path = Some(part.into());
        self
    }

    /// The `n`-th of those operations fails, counted from 1. Default: 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.nth = n;
        self
    }

    /// The operation takes effect and its answer is lost. Default: it does not take effect.
    pub fn after(mut self) -> Self {
        self.moment = Moment::After;
        self
    }

    /// The answer is lost, and the put takes effect when `delay` has passed: it was in flight.
    pub fn later(mut self, delay: Duration) -> Self {
        self.moment = Moment::Later(delay);
        self
    }

    /// All operations from the `n`-th on fail, until [`FaultStore::heal`]. Default: only that one.
    pub fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }

    fn counts(&self, operation: Operation, path: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && self.path.as_deref().is_none_or(|part| path.contains(part))
    }
}

#[derive(Debug, Default)]
struct State {
    script: Vec<(Fault, u64)>,
    random: Option<RandomFaults>,
    latency: Option<Latency>,
    stalls: Option<Stalls>,
    holds: Vec<(Fault, u64, Hold)>,
    operations: Vec<(Operation, String)>,
    injected: u64,
}

#[derive(Debug)]
struct RandomFaults {
    rng: StdRng,
    probability: f64,
}

#[derive(Debug)]
struct Latency {
    rng: StdRng,
    least: Duration,
    most: Duration,
}

#[derive(Debug)]
struct Stalls {
    rng: StdRng,
    probability: f64,
    most: Duration,
}

/// A request that waits before it takes effect. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Hold {
    reached: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Hold {
    fn new() -> Self {
        Self { reached: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until the request is there.
    pub async fn reached(&self) {
        // Nobody closes it.
        let _ = self.reached.acquire().await;
    }

    /// Lets the request go on.
    pub fn release(&self) {
        self.released.add_permits(1);
    }

    async fn pass(&self) {
        self.reached.add_permits(1);
        let _ = self.released.acquire().await;
    }
}

/// What becomes of one operation.
struct Verdict {
    hold: Option<Hold>,
    wait: Option<Duration>,
    /// How long its answer takes once it has had its effect.
    linger: Option<Duration>,
    fault: Option<(Moment, FaultError)>,
}

/// An object store that passes operations on and makes some of them fail. Clones share everything.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// Wraps `inner`; without a script nothing fails.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// The store underneath, where nothing fails.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// Adds a fault to the script. It counts operations from now on.
    pub fn inject(&self, fault: Fault) {
        self.lock().script.push((fault, 0));
    }

    /// Lets the request wait that such a fault would strike, from now on, before it takes effect; it does
    /// not fail.
    #[must_use]
    pub fn hold(&self, at: Fault) -> Hold {
        let hold = Hold::new();
        self.lock().holds.push((at, 0, hold.clone()));
        hold
    }

    /// Lets each operation fail with `probability`, as a store that does not lie may fail: an answer
    /// that is lost or late says nothing, or that the object is there already; a refusal that says
    /// why has had no effect. The seed is printed, so that a failing test can be run again with it.
    pub fn inject_randomly(&self, seed: u64, probability: f64) {
        eprintln!("{STORE}: random faults with seed {seed}, probability {probability}");
        let rng = StdRng::seed_from_u64(seed);
        self.lock().random = Some(RandomFaults { rng, probability });
    }

    /// Makes every request take between `least` and `most` of tokio's time, as `seed` chooses.
    pub fn set_latency(&self, seed: u64, least: Duration, most: Duration) {
        self.lock().latency = Some(Latency { rng: StdRng::seed_from_u64(seed), least, most });
    }

    /// Lets each request stall with `probability`, one half of them before it takes effect and the other
    /// after, for at most `most` of tokio's time, as `seed` chooses.
    pub fn set_stalls(&self, seed: u64, probability: f64, most: Duration) {
        let rng = StdRng::seed_from_u64(seed);
        self.lock().stalls = Some(Stalls { rng, probability, most });
    }

    /// Ends all faults, latency and stalls.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.script.clear();
        state.random = None;
        state.latency = None;
        state.stalls = None;
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations.len() as u64
    }

    /// The operations, in order, with their paths.
    #[must_use]
    pub fn trace(&self) -> Vec<(Operation, String)> {
        self.lock().operations.clone()
    }

    /// How many operations were made to fail.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.lock().injected
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, operation: Operation, path: &str) -> Verdict {
        let mut state = self.lock();
        state.operations.push((operation, path.to_owned()));
        let mut chosen: Option<(Moment, FaultError)> = None;
        for (fault, seen) in &mut state.script {
            if !fault.counts(operation, path) {
                continue;
            }
            *seen += 1;
            if *seen == fault.nth || fault.for_good && *seen > fault.nth {
                chosen = chosen.or(Some((fault.moment, fault.error)));
            }
        }
        let chosen =
            chosen.or_else(|| state.random.as_mut().and_then(|random| random.draw(operation)));
        state.injected += u64::from(chosen.is_some());
        let mut hold = None;
        for (at, seen, one) in &mut state.holds {
            if at.counts(operation, path) {
                *seen += 1;
                hold = (*seen == at.nth).then(|| one.clone()).or(hold);
            }
        }
        let latency = state.latency.as_mut().map(Latency::draw);
        let (before, linger) = state.stalls.as_mut().map(Stalls::draw).unwrap_or_default();
        let wait = latency.into_iter().chain(before).reduce(|a, b| a + b);
        Verdict { hold, wait, linger, fault: chosen }
    }

    /// Runs one operation under its verdict.
    async fn run<T>(
        &self,
        operation: Operation,
        path: &str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let Verdict { hold, wait, linger, fault } = self.judge(operation, path);
        stall(wait).await;
        if let Some(hold) = hold {
            hold.pass().await;
        }
        match fault {
            None => {
                let answer = work.await;
                stall(linger).await;
                answer
            }
            Some((Moment::After, error)) => {
                // Whatever the answer is, it is lost.
                let _ = work.await;
                Err(error.make(path))
            }
            Some((Moment::Before | Moment::Later(_), error)) => Err(error.make(path)),
        }
    }

    /// A stream whose first or last item is the fault.
    fn run_stream<T: Send + 'static>(
        &self,
        path: &str,
        work: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let Verdict { hold, wait, linger, fault } = self.judge(Operation::List, path);
        let faulty = match fault {
            None => {
                let lingering = stream::once(stall(linger)).filter_map(|()| async { None });
                work.chain(lingering).boxed()
            }
            Some((Moment::After, error)) => {
                let path = path.to_owned();
                work.chain(stream::once(async move { Err(error.make(&path)) })).boxed()
            }
            Some((_, error)) => stream::iter([Err(error.make(path))]).boxed(),
        };
        let before = async move {
            stall(wait).await;
            if let Some(hold) = hold {
                hold.pass().await;
            }
        };
        before.map(move |()| faulty).flatten_stream().boxed()
    }
}

async fn stall(time: Option<Duration>) {
    if let Some(time) = time {
        tokio::time::sleep(time).await;
    }
}

impl Stalls {
    /// The times before and after an operation takes effect.
    fn draw(&mut self) -> (Option<Duration>, Option<Duration>) {
        if !self.rng.random_bool(self.probability) {
            return (None, None);
        }
        let time = Some(self.rng.random_range(Duration::ZERO..=self.most));
        if self.rng.random_bool(0.5) { (time, None) } else { (None, time) }
    }
}

impl RandomFaults {
    fn draw(&mut self, operation: Operation) -> Option<(Moment, FaultError)> {
        if !self.rng.random_bool(self.probability) {
            return None;
        }
        let choices = if operation == Operation::Put { 6 } else { 4 };
        Some(match self.rng.random_range(0..choices) {
            0 => (Moment::Before, FaultError::Generic),
            1 => (Moment::After, FaultError::Generic),
            2 => (Moment::Before, FaultError::PermissionDenied),
            3 => (Moment::Before, FaultError::Os(5)),
            4 => (Moment::After, FaultError::AlreadyExists),
            _ => {
                let delay = Duration::from_millis(self.rng.random_range(0..500));
                (Moment::Later(delay), FaultError::Generic)
            }
        })
    }
}

impl Latency {
    fn draw(&mut self) -> Duration {
        self.rng.random_range(self.least..=self.most)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let Verdict { hold, wait, linger, fault } = self.judge(Operation::Put, location.as_ref());
        stall(wait).await;
        if let Some(hold) = hold {
            hold.pass().await;
        }
        match fault {
            None => {
                let answer = self.inner.put_opts(location, payload, opts).await;
                stall(linger).await;
                answer
            }
            Some((Moment::Before, error)) => Err(error.make(location.as_ref())),
            Some((Moment::After, error)) => {
                // Whatever the answer is, it is lost.
                let _ = self.inner.put_opts(location, payload, opts).await;
                Err(error.make(location.as_ref()))
            }
            Some((Moment::Later(delay), error)) => {
                let (inner, location) = (Arc::clone(&self.inner), location.clone());
                let error = error.make(location.as_ref());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // Nobody waits for the answer any more.
                    let _ = inner.put_opts(&location, payload, opts).await;
                });
                Err(error)
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let work = self.inner.put_multipart_opts(location, opts);
        self.run(Operation::Put, location.as_ref(), work).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let work = self.inner.get_opts(location, options);
        self.run(operation, location.as_ref(), work).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let work = self.inner.get_ranges(location, ranges);
        self.run(Operation::Get, location.as_ref(), work).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.and_then(move |location| {
            let this = this.clone();
            async move {
                let one = stream::iter([Ok(location.clone())]).boxed();
                let work = this.inner.delete_stream(one).try_collect::<Vec<_>>();
                this.run(Operation::Delete, location.as_ref(), work).await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // Some stores look when they are asked for the stream, and not when it is read.
        let (inner, below) = (Arc::clone(&self.inner), prefix.cloned());
        let work = stream::once(async move { inner.list(below.as_ref()) }).flatten().boxed();
        self.run_stream(prefix.map_or("", Path::as_ref), work)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let work = self.inner.list_with_offset(prefix, offset);
        self.run_stream(prefix.map_or("", Path::as_ref), work)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let work = self.inner.list_with_delimiter(prefix);
        self.run(Operation::List, prefix.map_or("", Path::as_ref), work).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let work = self.inner.copy_opts(from, to, options);
        self.run(Operation::Copy, to.as_ref(), work).await
    }
}

#[cfg(test)]
mod tests {
    use tidelog_storage::object_store::memory::InMemory;
    use tidelog_storage::object_store::{ObjectStoreExt, PutMode};

    use super::*;

    fn store() -> (FaultStore, Path) {
        (FaultStore::new(Arc::new(InMemory::new())), Path::from("a/b"))
    }

    async fn is_there(store: &FaultStore, path: &Path) -> bool {
        store.inner().get(path).await.is_ok()
    }

    #[tokio::test]
    async fn only_the_nth_matching_operation_fails() {
        let (store, path) = store();
        store.inject(Fault::new(FaultError::Generic).on(Operation::Put).at_path("a/").nth(2));
        store.put(&Path::from("other"), "x".into()).await.unwrap();
        store.put(&path, "1".into()).await.unwrap();
        store.get(&path).await.unwrap();
        store.put(&path, "2".into()).await.unwrap_err();
        store.put(&path, "3".into()).await.unwrap();
        assert_eq!((store.operations(), store.injected()), (5, 1));
    }

    #[tokio::test]
    async fn a_sticky_fault_lasts_until_the_store_is_healed() {
        let (store, path) = store();
        store.inject(Fault::new(FaultError::Os(28)).on(Operation::Put).for_good());
        for _ in 0..3 {
            let error = store.put(&path, "x".into()).await.unwrap_err();
            let io = tidelog_storage::error::io_cause(&error).unwrap();
            assert_eq!(io.raw_os_error(), Some(28));
        }
        store.heal();
        store.put(&path, "x".into()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_strikes_before_after_or_while_the_put_is_in_flight() {
        let (store, path) = store();
        let create = || PutOptions::from(PutMode::Create);
        store.inject(Fault::new(FaultError::Generic));
        store.put_opts(&path, "x".into(), create()).await.unwrap_err();
        assert!(!is_there(&store, &path).await);

        store.inject(Fault::new(FaultError::Generic).later(Duration::from_secs(1)));
        store.put_opts(&path, "x".into(), create()).await.unwrap_err();
        assert!(!is_there(&store, &path).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(is_there(&store, &path).await);

        let other = Path::from("c");
        store.inject(Fault::new(FaultError::NotFound).after());
        store.put_opts(&other, "x".into(), create()).await.unwrap_err();
        assert!(is_there(&store, &other).await);

        store.inject(Fault::new(FaultError::Generic).on(Operation::Delete).after());
        store.delete(&other).await.unwrap_err();
        assert!(!is_there(&store, &other).await);
    }

    #[tokio::test]
    async fn a_list_loses_its_beginning_or_its_end() {
        let (store, path) = store();
        store.put(&path, "x".into()).await.unwrap();
        store.inject(Fault::new(FaultError::Generic));
        let items: Vec<_> = store.list(None).collect().await;
        assert!(matches!(items.as_slice(), [Err(_)]));
        store.inject(Fault::new(FaultError::Generic).after());
        let items: Vec<_> = store.list(None).collect().await;
        assert!(matches!(items.as_slice(), [Ok(_), Err(_)]));
    }

    #[tokio::test(start_paused = true)]
    async fn latency_is_tokio_time() {
        let (store, path) = store();
        store.set_latency(1, Duration::from_secs(5), Duration::from_secs(6));
        let before = tokio::time::Instant::now();
        store.put(&path, "x".into()).await.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_comes_before_the_effect_or_after_it() {
        let (store, _) = store();
        let (mut before, mut after) = (0, 0);
        store.set_stalls(1, 1.0, Duration::from_secs(60));
        for number in 0..20 {
            let path = Path::from(format!("a/{number}"));
            let putting = store.put(&path, "x".into());
            // The paused clock goes on only once nothing else can.
            assert!(tokio::time::timeout(Duration::from_millis(1), putting).await.is_err());
            if is_there(&store, &path).await { after += 1 } else { before += 1 }
        }
        assert!(before > 0 && after > 0 && before + after == 20);
    }

    #[tokio::test]
    async fn a_request_is_held_until_it_is_released() {
        let (store, path) = store();
        let hold = store.hold(Fault::new(FaultError::Generic).on(Operation::Put).nth(2));
        store.put(&path, "1".into()).await.unwrap();
        let late = Path::from("late");
        let putting = tokio::spawn({
            let (store, late) = (store.clone(), late.clone());
            async move { store.put(&late, "2".into()).await }
        });
        hold.reached().await;
        assert!(!is_there(&store, &late).await);
        hold.release();
        putting.await.unwrap().unwrap();
        assert!(is_there(&store, &late).await);
    }

    #[tokio::test]
    async fn one_seed_gives_one_sequence_of_random_faults() {
        let run = async |seed| {
            let (store, path) = store();
            store.inject_randomly(seed, 0.5);
            let mut outcomes = Vec::new();
            for _ in 0..64 {
                outcomes
                    .push(store.put(&path, "x".into()).await.map_err(|e| e.to_string()).is_ok());
            }
            outcomes
        };
        let first = run(3).await;
        assert_eq!(first, run(3).await);
        assert!(first.contains(&true) && first.contains(&false));
    }
}
