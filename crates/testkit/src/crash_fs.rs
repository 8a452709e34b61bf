//! The operating system's files, at a chosen change of which the process dies.
//!
//! Each change has a name, such as `segment sync` or `commit link`, made of what the file is to a store
//! and of what is done to it. So a test can kill a writer at each kind of change evenly, however rare it
//! is, under a load in which nobody can count changes through.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, OsFileSystem, ReadFile};

/// What a process says on standard output before it dies, followed by the change's name.
pub const DYING: &str = "dying at ";

/// A change at which the process dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPlan {
    /// The change's name.
    pub name: String,
    /// Which change of that name, counted from 1.
    pub nth: u64,
    /// After it took effect; else before.
    pub after: bool,
}

impl CrashPlan {
    /// The plan as text, for an environment variable.
    #[must_use]
    pub fn text(&self) -> String {
        let when = if self.after { "after" } else { "before" };
        format!("{when}:{}:{}", self.nth, self.name)
    }

    /// A plan from its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let after = match parts.next()? {
            "before" => false,
            "after" => true,
            _ => return None,
        };
        let nth = parts.next()?.parse().ok()?;
        Some(Self { name: parts.next()?.to_owned(), nth, after })
    }
}

/// The operating system's files, at a chosen change of which the process dies. Clones count together.
#[derive(Debug, Clone)]
pub struct CrashFileSystem {
    inner: OsFileSystem,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    plan: Option<CrashPlan>,
    passed: Mutex<BTreeMap<String, u64>>,
}

impl Wire {
    fn around<T>(
        &self,
        what: &str,
        path: &Path,
        change: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let name = format!("{} {what}", kind_of(path));
        let number = {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let count = passed.entry(name.clone()).or_default();
            *count += 1;
            *count
        };
        let Some(plan) = self.plan.as_ref().filter(|p| p.name == name && p.nth == number) else {
            return change();
        };
        if plan.after {
            // What it answers is heard by nobody.
            let _ = change();
        }
        let mut out = io::stdout().lock();
        // Whoever listens has gone if this fails, and dying goes on.
        let _ = writeln!(out, "{DYING}{}", plan.text());
        let _ = out.flush();
        std::process::abort();
    }
}

/// What a file or directory is to a store.
fn kind_of(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let within = |directory: &str| path.components().any(|part| part.as_os_str() == directory);
    match name.as_ref() {
        "_wal" => "log ahead",
        "_delta_log" => "commits",
        "wal.lock" => "lock",
        name if name.starts_with("wal.id") => "id",
        name if name.starts_with("tiers.json") => "gauge",
        name if name.ends_with(".wal") => "segment",
        name if name.starts_with("part-") => "log part",
        name if name.contains(".checkpoint.") => "checkpoint",
        name if name.contains("_last_checkpoint") => "pointer",
        name if within("_delta_log") && name.contains(".json") => "commit",
        name if within("series") && name.contains(".parquet") => "data file",
        _ if within("series") => "data",
        _ => "other",
    }
}

impl CrashFileSystem {
    /// Files at whose change, as planned, the process dies; without a plan changes are only counted.
    #[must_use]
    pub fn new(plan: Option<CrashPlan>) -> Self {
        let wire = Wire { plan, passed: Mutex::default() };
        Self { inner: OsFileSystem, wire: Arc::new(wire) }
    }

    /// How often each change was made.
    #[must_use]
    pub fn passed(&self) -> BTreeMap<String, u64> {
        self.wire.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FileSystem for CrashFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.wire.around("make directory", path, || self.inner.create_dir(path))
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
        self.wire.around("write", path, || self.inner.write_new(path, parts))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.wire.around("sync", path, || self.inner.sync_file(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.wire.around("link", to, || self.inner.link(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.wire.around("rename", to, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.wire.around("unlink", path, || self.inner.remove(path))
    }

    fn remove_unlocked(&self, path: &Path) -> io::Result<bool> {
        self.wire.around("sweep", path, || self.inner.remove_unlocked(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.wire.around("sync directory", path, || self.inner.sync_dir(path))
    }

    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inner = self.wire.around("create", path, || self.inner.create_append(path))?;
        Ok(Box::new(CrashFile { inner, path: path.into(), wire: Arc::clone(&self.wire) }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inner = self.inner.open_append(path)?;
        Ok(Box::new(CrashFile { inner, path: path.into(), wire: Arc::clone(&self.wire) }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.inner.open_read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(path)
    }

    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
        self.wire.around("take", path, || self.inner.try_lock(path, note))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_locked(path)
    }
}

#[derive(Debug)]
struct CrashFile {
    inner: Box<dyn AppendFile>,
    path: Box<Path>,
    wire: Arc<Wire>,
}

impl AppendFile for CrashFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        self.wire.around("append", &self.path, || self.inner.append(parts))
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.wire.around("rewrite", &self.path, || self.inner.rewrite(offset, bytes))
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.wire.around("reserve", &self.path, || self.inner.reserve(offset, bytes))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.wire.around("sync", &self.path, || self.inner.sync_data())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.wire.around("cut", &self.path, || self.inner.truncate(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_by_what_they_are_to_a_store() {
        for (path, kind) in [
            ("s/_wal/00000000000000000001.wal", "segment"),
            ("s/_wal/wal.id.new", "id"),
            ("s/_wal/tiers.json", "gauge"),
            ("s/_wal", "log ahead"),
            ("s/_oplog/_delta_log/00000000000000000002.json#77", "commit"),
            ("s/_oplog/_delta_log/00000000000000000032.checkpoint.parquet#1", "checkpoint"),
            ("s/_oplog/_delta_log", "commits"),
            ("s/_oplog/part-a.parquet#3", "log part"),
            ("s/series/a/b.parquet", "data file"),
            ("s/series/a", "data"),
            ("s", "other"),
        ] {
            assert_eq!(kind_of(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_plan_comes_back() {
        let plan = CrashPlan { name: "segment sync".to_owned(), nth: 3, after: true };
        assert_eq!(CrashPlan::parse(&plan.text()), Some(plan));
        assert_eq!(CrashPlan::parse("sometime:1:segment sync"), None);
    }
}
