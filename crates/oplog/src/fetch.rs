//! Reading the log's objects, and believing none of them before its hash is checked.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidelog_core::CommitVersion;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectStore, ObjectStoreExt};

use crate::carried::Parted;
use crate::commit::{self, Commit};
use crate::decode::{self, Groups, Wanted};
use crate::error::Error;
use crate::hash::Hash128;
use crate::part::{Extent, Group, Part};
use crate::row::Row;

pub(crate) const FETCH_CONCURRENCY: usize = 32;

/// A part of at most this size is fetched whole, in one request, even for one series.
const WHOLE_BYTES_MAX: u64 = 256 * 1024;

/// Decoding this many log rows takes well under a millisecond.
const INLINE_ROWS_MAX: u64 = 64;

/// Row groups that one thread decodes.
const GROUPS_TOGETHER: usize = 3;

/// The objects below the log's directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogObjects {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
}

impl LogObjects {
    pub(crate) async fn commit(&self, version: CommitVersion) -> Result<Option<Commit>, Error> {
        let object = commit::object_of(&self.prefix, version);
        match self.object(&object).await? {
            Some(bytes) => commit::decode(&object, version, &Parted::new(&bytes).text).map(Some),
            None => Ok(None),
        }
    }

    /// The commit with those that it carries, oldest first.
    pub(crate) async fn commit_and_carried(
        &self,
        version: CommitVersion,
    ) -> Result<Option<Vec<Commit>>, Error> {
        let object = commit::object_of(&self.prefix, version);
        let Some(bytes) = self.object(&object).await? else { return Ok(None) };
        let parted = Parted::new(&bytes);
        let mut commits = parted.commits(&self.prefix, version)?;
        commits.push(commit::decode(&object, version, &parted.text)?);
        Ok(Some(commits))
    }

    /// Whether the commit's object is there.
    pub(crate) async fn has_commit(&self, version: CommitVersion) -> Result<bool, Error> {
        let object = commit::object_of(&self.prefix, version);
        match self.store.head(&object).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(store_error("reading", &object, source)),
        }
    }

    /// The rows that a commit brings, if a part with some of them is `needed`.
    pub(crate) async fn new_rows(
        &self,
        commit: &Commit,
        needed: impl Fn(&Part) -> bool,
    ) -> Result<Vec<Row>, Error> {
        let needed: Vec<&Part> =
            commit.parts.iter().filter(|part| !part.is_merged() && needed(part)).collect();
        match &commit.inline {
            Some(inline) if !needed.is_empty() => {
                inline.rows(commit::object_of(&self.prefix, commit.version).as_ref())
            }
            _ => self.rows(needed.into_iter()).await,
        }
    }

    /// The rows of several parts, in the order of the parts.
    pub(crate) async fn rows<'a>(
        &self,
        parts: impl Iterator<Item = &'a Part>,
    ) -> Result<Vec<Row>, Error> {
        let parts: Vec<Part> = parts.cloned().collect();
        let read = self.each(parts, |objects, part| async move {
            let (path, bytes) = objects.part(&part).await?;
            if part.rows <= INLINE_ROWS_MAX {
                return decode::from_parquet(path.as_ref(), bytes);
            }
            off_the_runtime(move || decode::from_parquet(path.as_ref(), bytes)).await
        });
        Ok(read.await?.into_iter().flatten().collect())
    }

    /// Rows of several parts, those of the nodes among them.
    pub(crate) async fn rows_of(
        &self,
        parts: &[Arc<Part>],
        nodes: &Wanted,
    ) -> Result<Vec<Row>, Error> {
        let read = self.each(parts.to_vec(), |objects, part| {
            let nodes = nodes.clone();
            async move { objects.part_rows_of(&part, nodes).await }
        });
        Ok(read.await?.into_iter().flatten().collect())
    }

    /// What `read` makes of each item, many at a time, in order. Everything is owned, so that the
    /// future can move between threads whatever it borrows from.
    pub(crate) async fn each<I, T, F>(
        &self,
        items: Vec<I>,
        read: impl Fn(Self, I) -> F,
    ) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let reads: Vec<F> = items.into_iter().map(|item| read(self.clone(), item)).collect();
        stream::iter(reads).buffered(FETCH_CONCURRENCY).try_collect().await
    }

    async fn part_rows_of(&self, part: &Part, nodes: Wanted) -> Result<Vec<Row>, Error> {
        let Some(layout) = part.layout.as_ref().filter(|_| part.size > WHOLE_BYTES_MAX) else {
            let (path, bytes) = self.part(part).await?;
            if part.rows <= INLINE_ROWS_MAX {
                return decode::from_parquet_of(path.as_ref(), bytes, &nodes);
            }
            let decode = move || decode::from_parquet_of(path.as_ref(), bytes, &nodes);
            return off_the_runtime(decode).await;
        };
        let holds = |group: &Group| nodes.lie_within(&group.first, &group.last);
        let Some(from) = layout.groups.iter().position(holds) else { return Ok(Vec::new()) };
        let last = layout.groups.iter().rposition(holds).unwrap_or(from);
        let wanted: Vec<&Group> = layout.groups[from..=last].iter().collect();
        let extents: Vec<&Extent> = wanted.iter().map(|group| &group.extent).collect();
        let path = self.part_path(part);
        let tail = [&layout.tail];
        let (tail, bytes) =
            tokio::try_join!(self.stretch(&path, &tail), self.stretch(&path, &extents))?;
        let offset = extents.first().map_or(0, |first| first.offset);
        let slices = (0..wanted.len()).step_by(GROUPS_TOGETHER).map(|first| {
            let count = GROUPS_TOGETHER.min(wanted.len() - first);
            Groups { from: from + first, count, offset, bytes: bytes.clone() }
        });
        let decoded = slices.map(|groups| {
            let (tail, extent) = (tail.clone(), layout.tail.clone());
            let (path, nodes) = (path.clone(), nodes.clone());
            off_the_runtime(move || decode::groups_of(path.as_ref(), extent, tail, groups, &nodes))
        });
        let decoded = futures::future::try_join_all(decoded).await?;
        Ok(decoded.into_iter().flatten().collect())
    }

    /// Bytes of extents that follow one another, as one request.
    pub(crate) async fn stretch(&self, path: &Path, extents: &[&Extent]) -> Result<Bytes, Error> {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else {
            return Ok(Bytes::new());
        };
        let range = first.offset..last.range().end;
        let bytes = match self.store.get_range(path, range).await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Err(missing(path)),
            Err(source) => return Err(store_error("reading", path, source)),
        };
        for extent in extents {
            let at = usize::try_from(extent.offset - first.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
            let found = bytes.get(at..).and_then(|rest| rest.get(..length));
            if !found.is_some_and(|found| extent.matches(found)) {
                return Err(altered(path));
            }
        }
        Ok(bytes)
    }

    /// The bytes of a part, checked against the hash in its commit.
    pub(crate) async fn part(&self, part: &Part) -> Result<(Path, Bytes), Error> {
        let path = self.part_path(part);
        let Some(bytes) = self.object(&path).await? else { return Err(missing(&path)) };
        if bytes.len() as u64 != part.size || Hash128::of(&bytes) != part.hash {
            return Err(altered(&path));
        }
        Ok((path, bytes))
    }

    pub(crate) async fn object(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let read = match self.store.get(path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(store_error("reading", path, source)),
        }
    }

    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let put = self.store.put(path, bytes.into()).await;
        put.map(|_| ()).map_err(|source| store_error("writing", path, source))
    }

    pub(crate) fn part_path(&self, part: &Part) -> Path {
        self.prefix.clone().join(part.object.as_str())
    }
}

/// Decodes where it holds up nobody.
async fn off_the_runtime<T: Send + 'static>(
    decode: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(decode).await.map_err(Error::encode)?
}

fn missing(path: &Path) -> Error {
    Error::part(path.as_ref(), "it is missing")
}

fn altered(path: &Path) -> Error {
    Error::part(path.as_ref(), "its bytes do not match the hash in its commit")
}

pub(crate) fn store_error(
    action: &'static str,
    object: &Path,
    source: object_store::Error,
) -> Error {
    Error::Store { action, object: object.to_string(), source }
}
