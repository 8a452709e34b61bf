//! A local directory as an object store whose puts survive a power cut.
//!
//! The stock local store of `object_store` never syncs. Here a put returns only when the bytes, the
//! name and every directory made on the way are on the disk:
//!
//! ```text
//! write <name>#<n>  → sync file → link (create) or rename (replace) → sync directory → Ok
//! ```
//!
//! Invariants:
//! 1. A name is visible with all of its bytes or not at all.
//! 2. After `Ok` a power cut loses neither bytes nor name.
//! 3. Of two creating puts of one name exactly one wins (`link` is atomic).
//!
//! Staged names end in `#` and digits, which the stock store hides from lists and refuses to
//! serve; one that a crash left behind is never read, and found by [`crate::staged`]. Reading is the stock
//! store's, but that ranges which the kernel has in memory are taken from there at once.

use std::fmt;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use crate::at_once;
use crate::error::Error;
use crate::fs::{FileLock, FileSystem, OsFileSystem};
use crate::staged;

const STORE: &str = "DurableLocal";

/// Deletes of one stream that are under way at once.
const DELETED_AT_ONCE: usize = 8;

/// Names to try for bytes that have no name yet.
const STAGING_TRIES: u32 = 1000;

/// A local directory whose puts are durable when they return.
#[derive(Debug, Clone)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
    staged: AtomicU64,
}

impl DurableLocal {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`Error::Directory`] if `root` is not a directory that can be read.
    pub fn open(root: impl AsRef<FsPath>) -> std::result::Result<Self, Error> {
        Self::open_on(root, Arc::new(OsFileSystem))
    }

    /// Opens an existing directory, writing through `fs`.
    ///
    /// # Errors
    /// [`Error::Directory`] if `root` is not a directory that can be read.
    pub fn open_on(
        root: impl AsRef<FsPath>,
        fs: Arc<dyn FileSystem>,
    ) -> std::result::Result<Self, Error> {
        let given = root.as_ref();
        let fail =
            |source: io::Error| Error::Directory { path: given.display().to_string(), source };
        let root = given.canonicalize().map_err(fail)?;
        if !root.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let inner =
            LocalFileSystem::new_with_prefix(&root).map_err(|e| fail(io::Error::other(e)))?;
        let staged = AtomicU64::new(u64::from(std::process::id()) << 32);
        Ok(Self { inner: Arc::new(inner), disk: Arc::new(Disk { fs, root, staged }) })
    }

    /// Creates the directory, with its parents, if it is missing, and opens it.
    ///
    /// # Errors
    /// [`Error::Directory`] if it cannot be made or read.
    pub fn create(root: impl AsRef<FsPath>) -> std::result::Result<Self, Error> {
        Self::create_on(root, Arc::new(OsFileSystem))
    }

    /// Creates the directory, with its parents, if it is missing, and opens it, writing through `fs`.
    ///
    /// # Errors
    /// [`Error::Directory`] if it cannot be made or read.
    pub fn create_on(
        root: impl AsRef<FsPath>,
        fs: Arc<dyn FileSystem>,
    ) -> std::result::Result<Self, Error> {
        let given = root.as_ref();
        make_dirs(fs.as_ref(), given)
            .map_err(|source| Error::Directory { path: given.display().to_string(), source })?;
        Self::open_on(given, fs)
    }

    /// Runs blocking work off the runtime and maps its error to `location`.
    async fn blocking<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        let outcome = tokio::task::spawn_blocking(move || work(&disk)).await;
        let result = outcome.map_err(|source| object_store::Error::JoinError { source })?;
        result.map_err(|error| map_error(error, location))
    }
}

impl Disk {
    fn path_of(&self, location: &Path) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(location.parts().map(|part| part.as_ref().to_owned()));
        path
    }

    fn staging_name(&self, target: &FsPath) -> PathBuf {
        staged::name_of(target, self.staged.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes the bytes under a name that nobody else has. As long as the lock is held nobody takes them
    /// for abandoned.
    fn stage(&self, target: &FsPath, parts: &[Bytes]) -> io::Result<(PathBuf, Box<dyn FileLock>)> {
        for _ in 0..STAGING_TRIES {
            let staged = self.staging_name(target);
            match self.fs.write_new(&staged, parts) {
                Ok(held) => return Ok((staged, held)),
                // Another handle's, or that of a process of this id on another machine.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        let _ = self.fs.remove(&staged);
                    }
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("all staged names that were tried are taken"))
    }

    fn put(&self, target: &FsPath, parts: &[Bytes], create: bool) -> io::Result<()> {
        let directory = target.parent().unwrap_or(&self.root);
        let (staged, _held) = match self.stage(target, parts) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dirs(self.fs.as_ref(), directory)?;
                self.stage(target, parts)?
            }
            staged => staged?,
        };
        let named = match create {
            true => self.fs.link(&staged, target),
            false => self.fs.rename(&staged, target),
        };
        if create || named.is_err() {
            // The staged name is invisible to readers, so failing to remove it harms nobody.
            let _ = self.fs.remove(&staged);
        }
        named?;
        self.fs.sync_dir(directory)
    }
}

/// Makes `directory` and its missing parents, each durable in the one above.
fn make_dirs(fs: &dyn FileSystem, directory: &FsPath) -> io::Result<()> {
    match fs.create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Another task may have made it a moment ago without having synced it yet.
            if directory.is_dir() {
                return sync_parent(fs, directory);
            }
            return Err(error);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) else {
                return Err(error);
            };
            make_dirs(fs, parent)?;
            match fs.create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    sync_parent(fs, directory)
}

fn sync_parent(fs: &dyn FileSystem, directory: &FsPath) -> io::Result<()> {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs.sync_dir(parent),
        _ => fs.sync_dir(FsPath::new(".")),
    }
}

fn map_error(error: io::Error, location: &Path) -> object_store::Error {
    let path = location.to_string();
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path, source: Box::new(error) }
        }
        io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: Box::new(error) },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            object_store::Error::PermissionDenied { path, source: Box::new(error) }
        }
        _ => object_store::Error::Generic { store: STORE, source: Box::new(error) },
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.disk.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(object_store::Error::NotImplemented {
                    operation: "put with an expected version".to_owned(),
                    implementer: STORE.to_owned(),
                });
            }
        };
        self.blocking(location, {
            let location = location.clone();
            move |disk| {
                let parts: Vec<Bytes> = payload.into_iter().collect();
                disk.put(&disk.path_of(&location), &parts, create)
            }
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = self.disk.path_of(location);
        if !location.as_ref().contains('#') && at_once::is_missing(&path) {
            return Err(map_error(io::ErrorKind::NotFound.into(), location));
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        // Names of staged files are the stock store's to refuse, here as above.
        if !location.as_ref().contains('#')
            && let Some(found) = at_once::read(&self.disk.path_of(location), ranges)
        {
            return Ok(found);
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deletes = locations.map(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                let path = this.disk.path_of(&location);
                this.blocking(&location, move |disk| disk.fs.remove(&path)).await?;
                Ok(location)
            }
        });
        deletes.buffered(DELETED_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Create => PutMode::Create,
            CopyMode::Overwrite => PutMode::Overwrite,
        };
        let bytes = self.inner.get_opts(from, GetOptions::default()).await?.bytes().await?;
        self.put_opts(to, bytes.into(), mode.into()).await.map(|_| ())
    }
}

/// The stock upload, followed by the syncs that it leaves out.
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    store: DurableLocal,
    location: Path,
}

impl fmt::Debug for DurableUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableUpload").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let location = self.location.clone();
        self.store
            .blocking(&self.location, move |disk| {
                let path = disk.path_of(&location);
                disk.fs.sync_file(&path)?;
                // The stock upload made missing parents itself, so all the way up is synced.
                let mut directory = path.parent();
                while let Some(current) = directory.filter(|d| d.starts_with(&disk.root)) {
                    disk.fs.sync_dir(current)?;
                    directory = current.parent();
                }
                Ok(())
            })
            .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FsPath;
    use std::sync::Mutex;

    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::fs::{AppendFile, ReadFile};

    /// Notes each call, so that a test can see what was synced when.
    #[derive(Debug, Default)]
    struct Recording(Mutex<Vec<String>>);

    impl Recording {
        fn note(&self, call: &str, path: &FsPath) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let name = name.split('#').next().unwrap_or_default().to_owned();
            self.0.lock().unwrap().push(format!("{call} {name}"));
        }
    }

    impl FileSystem for Recording {
        fn create_dir(&self, path: &FsPath) -> io::Result<()> {
            self.note("mkdir", path);
            OsFileSystem.create_dir(path)
        }
        fn write_new(&self, path: &FsPath, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
            self.note("write", path);
            OsFileSystem.write_new(path, parts)
        }
        fn sync_file(&self, path: &FsPath) -> io::Result<()> {
            self.note("sync", path);
            OsFileSystem.sync_file(path)
        }
        fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
            self.note("link", to);
            OsFileSystem.link(from, to)
        }
        fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
            self.note("rename", to);
            OsFileSystem.rename(from, to)
        }
        fn remove(&self, path: &FsPath) -> io::Result<()> {
            self.note("remove", path);
            OsFileSystem.remove(path)
        }
        fn remove_unlocked(&self, path: &FsPath) -> io::Result<bool> {
            OsFileSystem.remove_unlocked(path)
        }
        fn sync_dir(&self, path: &FsPath) -> io::Result<()> {
            self.note("syncdir", path);
            OsFileSystem.sync_dir(path)
        }
        fn create_append(&self, path: &FsPath) -> io::Result<Box<dyn AppendFile>> {
            OsFileSystem.create_append(path)
        }
        fn open_append(&self, path: &FsPath) -> io::Result<Box<dyn AppendFile>> {
            OsFileSystem.open_append(path)
        }
        fn open_read(&self, path: &FsPath) -> io::Result<Box<dyn ReadFile>> {
            OsFileSystem.open_read(path)
        }
        fn list(&self, path: &FsPath) -> io::Result<Vec<std::ffi::OsString>> {
            OsFileSystem.list(path)
        }
        fn try_lock(&self, path: &FsPath, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
            OsFileSystem.try_lock(path, note)
        }
        fn is_locked(&self, path: &FsPath) -> io::Result<bool> {
            OsFileSystem.is_locked(path)
        }
    }

    #[tokio::test]
    async fn every_new_directory_is_synced_before_a_put_returns() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let recording = Arc::new(Recording::default());
        let store = DurableLocal::open_on(&root, Arc::clone(&recording) as _).unwrap();
        store.put(&Path::from("a/b/c"), "x".into()).await.unwrap();
        let calls = recording.0.lock().unwrap().clone();
        let tail =
            ["mkdir a", "syncdir root", "mkdir b", "syncdir a", "write c", "rename c", "syncdir b"];
        assert!(calls.ends_with(&tail.map(str::to_owned)), "{calls:?}");
    }

    #[tokio::test]
    async fn of_two_creating_puts_one_wins_and_nothing_is_left_staged() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(dir.path()).unwrap();
        let path = Path::from("log/0.json");
        let put = |text: &'static str| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(
                async move { store.put_opts(&path, text.into(), PutMode::Create.into()).await },
            )
        };
        let results = [put("a"), put("b"), put("c")];
        let mut wins = 0;
        for result in results {
            match result.await.unwrap() {
                Ok(_) => wins += 1,
                Err(error) => {
                    assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
                }
            }
        }
        assert_eq!(wins, 1);
        let files = std::fs::read_dir(dir.path().join("log")).unwrap().count();
        assert_eq!(files, 1);
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
    }

    #[tokio::test]
    async fn handles_of_one_process_leave_alone_what_another_has_staged() {
        let directory = tempfile::tempdir().unwrap();
        // All handles of a process count their staged names from the same number.
        let (one, other) = (
            DurableLocal::open(directory.path()).unwrap(),
            DurableLocal::open(directory.path()).unwrap(),
        );
        let name = one.disk.staging_name(&directory.path().canonicalize().unwrap().join("a"));
        std::fs::write(&name, "being written").unwrap();
        other.put(&Path::from("a"), "b".into()).await.unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"being written");
        let read = other.get(&Path::from("a")).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, "b");
    }

    #[tokio::test]
    async fn what_is_deleted_is_removed_through_the_seam() {
        let dir = tempfile::tempdir().unwrap();
        let recording = Arc::new(Recording::default());
        let store = DurableLocal::open_on(dir.path(), Arc::clone(&recording) as _).unwrap();
        for name in ["a/1", "a/2"] {
            store.put(&Path::from(name), "x".into()).await.unwrap();
        }
        let names = ["a/1", "a/none", "a/2"].map(|name| Ok(Path::from(name)));
        let deleted = store.delete_stream(futures::stream::iter(names).boxed());
        let deleted: Vec<_> = deleted.collect().await;
        assert!(matches!(deleted[1], Err(object_store::Error::NotFound { .. })), "{deleted:?}");
        assert!(deleted[0].is_ok() && deleted[2].is_ok());
        let removed: Vec<String> = recording.0.lock().unwrap().clone();
        let removed: Vec<&String> = removed.iter().filter(|c| c.starts_with("remove")).collect();
        assert_eq!(removed, ["remove 1", "remove none", "remove 2"]);
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_multipart_upload_is_synced_with_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let recording = Arc::new(Recording::default());
        let store = DurableLocal::open_on(dir.path(), Arc::clone(&recording) as _).unwrap();
        let mut upload = store.put_multipart(&Path::from("d/big")).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        upload.complete().await.unwrap();
        let calls = recording.0.lock().unwrap().clone();
        assert_eq!(calls[..2], ["sync big".to_owned(), "syncdir d".to_owned()]);
        let bytes = store.get(&Path::from("d/big")).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.as_ref(), b"abc");
    }
}
