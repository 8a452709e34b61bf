//! A wrapper that repeats what is safe to repeat.
//!
//! The log decides what becomes of a commit whose answer was lost, so no layer below it may put a
//! commit twice. All else may be repeated without harm:
//!
//! | request | repeated |
//! |---|---|
//! | get, head, list | yes; a body that breaks off is continued where it broke, a list is begun again |
//! | delete | yes; that it is gone at the second try counts as deleted |
//! | put, copy in overwrite mode | yes: objects have unique names, the same bytes go to the same name |
//! | put, copy that create or compare | never |
//! | parts of a multipart upload | never: the caller gives the upload up |
//!
//! A request is repeated after a broken connection, a time-out and the statuses 408, 409 (overwriting
//! only), 429 and 5xx but 501; not after what a server has refused. The wait before the n-th repeat is
//! a random time between half and all of 50 ms × 2ⁿ, at most 5 s.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use tidelog_core::Randomness;
use tokio::time::Instant;

use crate::explained::remote_error;

/// As many as the largest batch that a client makes of deletes.
const DELETE_BATCH: usize = 1_000;

/// How often, and for how long, a request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts_max: u32,
    first_wait: Duration,
    wait_max: Duration,
    total_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            first_wait: Duration::from_millis(50),
            wait_max: Duration::from_secs(5),
            total_max: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// Sets how often a request is tried in all. Default: 6.
    #[must_use]
    pub fn with_attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// Sets for how long no more than that new tries begin. Default: 60 s after the first.
    #[must_use]
    pub fn with_total_max(mut self, total: Duration) -> Self {
        self.total_max = total;
        self
    }
}

/// A store whose harmless requests are repeated when they fail for a reason that may pass.
#[derive(Clone)]
pub struct Retrying {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    randomness: Arc<dyn Randomness>,
}

impl Retrying {
    /// Wraps `inner`, which must not repeat anything itself.
    #[must_use]
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        policy: RetryPolicy,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        Self { inner, policy, randomness }
    }

    fn tries(&self) -> Tries {
        Tries {
            policy: self.policy,
            randomness: Arc::clone(&self.randomness),
            failed: 0,
            began: Instant::now(),
        }
    }

    async fn repeat<T, F>(
        &self,
        may_pass: impl Fn(&Error) -> bool + Send,
        work: impl Fn() -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let mut tries = self.tries();
        loop {
            match work().await {
                Err(error) if may_pass(&error) => tries.wait_after(error).await?,
                other => return other,
            }
        }
    }

    /// Deletes these, and again those that failed for a reason that may pass.
    async fn delete_batch(&self, paths: Vec<Path>) -> Vec<Result<Path>> {
        let mut tries = self.tries();
        let mut results: Vec<Result<Path>> = Vec::with_capacity(paths.len());
        let mut pending = paths;
        loop {
            let asked = stream::iter(pending.clone().into_iter().map(Ok)).boxed();
            let mut gone = HashSet::new();
            let mut failed = Vec::new();
            let mut answers = self.inner.delete_stream(asked);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(path) => drop(gone.insert(path)),
                    Err(Error::NotFound { path, .. }) if tries.failed > 0 => {
                        gone.extend(pending.iter().find(|p| p.as_ref() == path).cloned());
                    }
                    Err(error) => failed.push(error),
                }
            }
            results.extend(pending.iter().filter(|path| gone.contains(*path)).cloned().map(Ok));
            pending.retain(|path| !gone.contains(path));
            let Some(error) = failed.pop() else { return results };
            if pending.is_empty() || !failed.iter().chain([&error]).all(may_pass_at_overwrite) {
                results.extend(failed.into_iter().chain([error]).map(Err));
                return results;
            }
            if let Err(error) = tries.wait_after(error).await {
                results.extend(failed.into_iter().chain([error]).map(Err));
                return results;
            }
        }
    }

    fn list_again(
        &self,
        list: impl Fn(&dyn ObjectStore) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let body = list(self.inner.as_ref());
        let state = (self.clone(), list, body, self.tries(), HashSet::new());
        let listed =
            stream::try_unfold(state, |(store, list, mut body, mut tries, mut seen)| async {
                loop {
                    match body.next().await {
                        // Stores promise no order, so what was yielded before is known by its name.
                        Some(Ok(meta)) if seen.insert(meta.location.clone()) => {
                            return Ok(Some((meta, (store, list, body, tries, seen))));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) if may_pass(&error) => {
                            tries.wait_after(error).await?;
                            body = list(store.inner.as_ref());
                        }
                        Some(Err(error)) => return Err(error),
                        None => return Ok(None),
                    }
                }
            });
        listed.boxed()
    }
}

/// Whether the same request may succeed later.
fn may_pass(error: &Error) -> bool {
    match (error, remote_error(error)) {
        (Error::Generic { .. }, Some(remote)) if remote.refusal().is_none() => {
            remote.status().is_none_or(|status| matches!(status, 408 | 429 | 500..=599))
        }
        (Error::Generic { .. }, None) => true,
        _ => false,
    }
}

/// As [`may_pass`], where a conflict can only be with a request that is under way.
fn may_pass_at_overwrite(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. }) || may_pass(error)
}

/// The tries of one request.
struct Tries {
    policy: RetryPolicy,
    randomness: Arc<dyn Randomness>,
    failed: u32,
    began: Instant,
}

impl Tries {
    /// Waits until the next try may begin, or gives the error back if there is none.
    async fn wait_after(&mut self, error: Error) -> Result<()> {
        let factor = 1_u32.checked_shl(self.failed).unwrap_or(u32::MAX);
        self.failed += 1;
        let longest = self.policy.first_wait.saturating_mul(factor).min(self.policy.wait_max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(micros - self.randomness.below(micros / 2 + 1));
        let late = self.began.elapsed() + wait > self.policy.total_max;
        if late || self.failed >= self.policy.attempts_max {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// What is left of a body.
struct Rest {
    store: Retrying,
    location: Path,
    options: GetOptions,
    left: Range<u64>,
    body: BoxStream<'static, Result<Bytes>>,
    tries: Tries,
}

impl Rest {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        loop {
            let error = match self.body.next().await {
                Some(Ok(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    return Ok(Some((bytes, self)));
                }
                None if self.left.is_empty() => return Ok(None),
                None => Error::Generic { store: "Retrying", source: "a body broke off".into() },
                Some(Err(error)) => error,
            };
            // Without a tag nobody could tell whether the rest is of the same object.
            if self.options.if_match.is_none() || !may_pass(&error) {
                return Err(error);
            }
            self.reopen(error).await?;
        }
    }

    /// Asks for what has not come yet.
    async fn reopen(&mut self, mut error: Error) -> Result<()> {
        loop {
            self.tries.wait_after(error).await?;
            let range = Some(GetRange::Bounded(self.left.clone()));
            let options = GetOptions { range, ..self.options.clone() };
            match self.store.inner.get_opts(&self.location, options).await {
                Ok(found) => {
                    self.body = found.into_stream();
                    return Ok(());
                }
                Err(failed) if may_pass(&failed) => error = failed,
                Err(failed) => return Err(failed),
            }
        }
    }
}

impl fmt::Debug for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish()
    }
}

impl fmt::Display for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retrying({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Retrying {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if opts.mode != PutMode::Overwrite {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let put = || self.inner.put_opts(location, payload.clone(), opts.clone());
        self.repeat(may_pass_at_overwrite, put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || self.inner.get_opts(location, options.clone());
        let mut found = self.repeat(may_pass, get).await?;
        match found.payload {
            GetResultPayload::Stream(body) if !options.head => {
                let if_match = options.if_match.clone().or_else(|| found.meta.e_tag.clone());
                let rest = Rest {
                    store: self.clone(),
                    location: location.clone(),
                    options: GetOptions { if_match, ..options },
                    left: found.range.clone(),
                    body,
                    tries: self.tries(),
                };
                let body = stream::try_unfold(rest, Rest::next).boxed();
                found.payload = GetResultPayload::Stream(body);
            }
            payload => found.payload = payload,
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.try_chunks(DELETE_BATCH).then(move |chunk| {
            let this = this.clone();
            async move {
                let (paths, error) = match chunk {
                    Ok(paths) => (paths, None),
                    Err(stream::TryChunksError(paths, error)) => (paths, Some(error)),
                };
                let mut results = this.delete_batch(paths).await;
                results.extend(error.map(Err));
                stream::iter(results)
            }
        });
        deleted.flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.list_again(move |inner| inner.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.list_again(move |inner| inner.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.repeat(may_pass, || self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode != CopyMode::Overwrite {
            return self.inner.copy_opts(from, to, options).await;
        }
        let copy = || self.inner.copy_opts(from, to, options.clone());
        self.repeat(may_pass_at_overwrite, copy).await
    }
}

#[cfg(test)]
mod tests;
