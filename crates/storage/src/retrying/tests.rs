//! Each test scripts what an inner store answers and counts what it was asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use object_store::memory::InMemory;
use object_store::{Attributes, ObjectStoreExt};
use tidelog_core::env::SystemRandomness;

use super::*;

/// What the inner store does with one request instead of serving it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Serve,
    Fail,
    /// Does it, and loses the answer.
    ServeAndFail,
    Conflict,
    Refuse,
    /// A body or list that breaks off after so many bytes or entries.
    BreakOff(usize),
}

#[derive(Debug, Clone)]
struct Scripted {
    inner: Arc<InMemory>,
    steps: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(steps: &[Step]) -> Self {
        Self {
            inner: Arc::new(InMemory::new()),
            steps: Arc::new(Mutex::new(steps.iter().copied().collect())),
            asked: Arc::default(),
        }
    }

    fn retrying(&self) -> Retrying {
        Retrying::new(Arc::new(self.clone()), RetryPolicy::default(), Arc::new(SystemRandomness))
    }

    fn step(&self, what: impl Into<String>) -> Step {
        self.asked.lock().unwrap().push(what.into());
        self.steps.lock().unwrap().pop_front().unwrap_or(Step::Serve)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn answer<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.step(what) {
            Step::Serve | Step::BreakOff(_) => work.await,
            Step::Fail => Err(broken()),
            Step::ServeAndFail => {
                let _ = work.await;
                Err(broken())
            }
            Step::Conflict => Err(Error::AlreadyExists { path: what.into(), source: "409".into() }),
            Step::Refuse => {
                Err(Error::PermissionDenied { path: what.into(), source: "403".into() })
            }
        }
    }
}

fn broken() -> Error {
    Error::Generic { store: "Scripted", source: "the connection broke".into() }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.answer(location.as_ref(), self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.answer(location.as_ref(), self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let next = self.steps.lock().unwrap().front().copied();
        let range = format!("{:?}", options.range);
        let got = self.answer(&range, self.inner.get_opts(location, options)).await?;
        let Some(Step::BreakOff(after)) = next else { return Ok(got) };
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let bytes = got.bytes().await?;
        let parts = [Ok(bytes.slice(..after.min(bytes.len()))), Err(broken())];
        let payload = GetResultPayload::Stream(stream::iter(parts).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::new() })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.and_then(move |path| {
            let this = this.clone();
            async move {
                let known = this.inner.head(&path).await;
                this.answer(path.as_ref(), this.inner.delete(&path)).await?;
                known.map(|_| path)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list(prefix);
        match self.step("list") {
            Step::BreakOff(after) => {
                listed.take(after).chain(stream::iter([Err(broken())])).boxed()
            }
            Step::Fail => stream::iter([Err(broken())]).boxed(),
            _ => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.answer("list", self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.answer(to.as_ref(), self.inner.copy_opts(from, to, options)).await
    }
}

fn path() -> Path {
    Path::from("a/b")
}

#[tokio::test(start_paused = true)]
async fn overwriting_puts_are_repeated_until_they_land() {
    let inner = Scripted::new(&[Step::Fail, Step::Conflict, Step::ServeAndFail]);
    inner.retrying().put(&path(), "x".into()).await.unwrap();
    assert_eq!(inner.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn creating_and_comparing_puts_are_never_repeated() {
    for step in [Step::Fail, Step::ServeAndFail, Step::Conflict] {
        let inner = Scripted::new(&[step]);
        let create = PutOptions::from(PutMode::Create);
        inner.retrying().put_opts(&path(), "x".into(), create).await.unwrap_err();
        let version = object_store::UpdateVersion { e_tag: None, version: None };
        let inner = Scripted::new(&[step]);
        let update = PutOptions::from(PutMode::Update(version));
        inner.retrying().put_opts(&path(), "x".into(), update).await.unwrap_err();
        assert_eq!(inner.asked(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_repeated() {
    let inner = Scripted::new(&[Step::Refuse, Step::Refuse, Step::Refuse, Step::Refuse]);
    let store = inner.retrying();
    store.put(&path(), "x".into()).await.unwrap_err();
    store.get(&path()).await.unwrap_err();
    store.delete(&path()).await.unwrap_err();
    store.list_with_delimiter(None).await.unwrap_err();
    assert_eq!(inner.asked(), 4);
    // Nor is what is simply not there.
    assert!(matches!(store.get(&path()).await, Err(Error::NotFound { .. })));
    assert_eq!(inner.asked(), 5);
}

#[tokio::test(start_paused = true)]
async fn tries_are_bounded_in_number_and_in_time() {
    let inner = Scripted::new(&[Step::Fail; 50]);
    let before = Instant::now();
    inner.retrying().get(&path()).await.unwrap_err();
    assert_eq!(inner.asked(), 6);
    // 50 + 100 + 200 + 400 + 800 ms, and no less than half of it.
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(775) && waited <= Duration::from_millis(1_560));

    let inner = Scripted::new(&[Step::Fail; 50]);
    let policy = RetryPolicy::default()
        .with_attempts_max(u32::MAX)
        .with_total_max(Duration::from_millis(100));
    let store = Retrying::new(Arc::new(inner.clone()), policy, Arc::new(SystemRandomness));
    store.get(&path()).await.unwrap_err();
    assert!((2..=3).contains(&inner.asked()), "{}", inner.asked());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_continued_where_it_broke() {
    let steps = [Step::Serve, Step::BreakOff(3), Step::Fail, Step::BreakOff(0), Step::BreakOff(2)];
    let inner = Scripted::new(&steps);
    let store = inner.retrying();
    store.put(&path(), "0123456789".into()).await.unwrap();
    let body = store.get(&path()).await.unwrap().bytes().await.unwrap();
    assert_eq!(body.as_ref(), b"0123456789");
    let asked = inner.asked.lock().unwrap().clone();
    assert_eq!(
        asked[1..],
        [
            "None",
            "Some(Bounded(3..10))",
            "Some(Bounded(3..10))",
            "Some(Bounded(3..10))",
            "Some(Bounded(5..10))"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_range_that_breaks_off_is_continued_within_itself() {
    let inner = Scripted::new(&[Step::Serve, Step::BreakOff(1)]);
    let store = inner.retrying();
    store.put(&path(), "0123456789".into()).await.unwrap();
    let range = store.get_range(&path(), 2..6).await.unwrap();
    assert_eq!(range.as_ref(), b"2345");
    assert_eq!(inner.asked.lock().unwrap()[2], "Some(Bounded(3..6))");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_continued_with_another_object() {
    let inner = Scripted::new(&[Step::Serve, Step::BreakOff(3)]);
    let store = inner.retrying();
    store.put(&path(), "0123456789".into()).await.unwrap();
    let got = store.get(&path()).await.unwrap();
    store.put(&path(), "abcdefghij".into()).await.unwrap();
    assert!(matches!(got.bytes().await, Err(Error::Precondition { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_yields_each_entry_once() {
    let inner = Scripted::new(&[]);
    let store = inner.retrying();
    for name in ["a", "b", "c", "d"] {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    let steps = [Step::BreakOff(2), Step::Fail, Step::BreakOff(3)];
    inner.steps.lock().unwrap().extend(steps);
    let names: Vec<String> =
        store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn deletes_are_repeated_and_gone_is_deleted() {
    let inner = Scripted::new(&[]);
    let store = inner.retrying();
    let paths: Vec<Path> = (0..5).map(|i| Path::from(format!("{i}"))).collect();
    for path in &paths {
        store.put(path, "x".into()).await.unwrap();
    }
    let steps = [Step::Serve, Step::ServeAndFail, Step::Fail, Step::Serve];
    inner.steps.lock().unwrap().extend(steps);
    let asked = stream::iter(paths.clone().into_iter().map(Ok)).boxed();
    let mut deleted: Vec<Path> = store.delete_stream(asked).try_collect().await.unwrap();
    deleted.sort();
    assert_eq!(deleted, paths);
    assert_eq!(store.list(None).count().await, 0);
    // What was never there is the inner store's affair.
    assert!(matches!(store.delete(&paths[0]).await, Err(Error::NotFound { .. })));
}
