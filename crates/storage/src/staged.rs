//! The names under which bytes lie until their put has ended, and what puts leave that never did.
//!
//! A local put writes to `<name>#<digits>`, which it holds locked until the bytes have their name
//! ([`crate::durable`]). A process that dies leaves the staged name without a lock, whatever else lives: so
//! nobody's clock or process number decides what is abandoned. Where the file system has no locks nothing is
//! found to be.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::fs::{FileSystem, OsFileSystem};

/// Directories below one another that are looked through.
const DEPTH_MAX: usize = 16;

/// The staged name of bytes that are to lie at `target`.
pub(crate) fn name_of(target: &Path, number: u64) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(format!("#{number}"));
    PathBuf::from(name)
}

/// The name that a staged one stands for.
fn target_of(name: &str) -> Option<&str> {
    let (target, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !target.is_empty()).then_some(target)
}

/// Bytes under a staged name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Staged {
    /// Its name, relative to the store's root.
    pub name: String,
    /// The object that the bytes were to become.
    pub target: ObjectPath,
    /// How many bytes there are.
    pub size: u64,
    /// When they were written, by the clock of the file system.
    pub modified: SystemTime,
}

impl Staged {
    /// As an object at its target would say of itself.
    #[must_use]
    pub fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            location: self.target.clone(),
            last_modified: self.modified.into(),
            size: self.size,
            e_tag: None,
            version: None,
        }
    }
}

/// The staged names of a store in a directory; of any other store there are none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StagedNames(Option<Place>);

#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    fs: Arc<dyn FileSystem>,
}

impl StagedNames {
    /// Of a store that is no directory.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Of the store in the directory `root`.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self::on(root, Arc::new(OsFileSystem))
    }

    /// Of the store in the directory `root`, whose files are changed through `fs`.
    #[must_use]
    pub fn on(root: PathBuf, fs: Arc<dyn FileSystem>) -> Self {
        Self(Some(Place { root, fs }))
    }

    /// The staged names below a directory of the store that nobody holds, in order.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn abandoned(&self, directory: &str) -> io::Result<Vec<Staged>> {
        let Some(place) = self.0.clone() else { return Ok(Vec::new()) };
        let below = PathBuf::from(directory);
        let found = tokio::task::spawn_blocking(move || place.abandoned(&below));
        found.await.map_err(io::Error::other)?
    }

    /// Removes what nobody holds; whether it did.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn remove(&self, staged: &Staged) -> io::Result<bool> {
        let Some(place) = self.0.clone() else { return Ok(false) };
        let path = place.root.join(&staged.name);
        let removed = tokio::task::spawn_blocking(move || place.fs.remove_unlocked(&path));
        removed.await.map_err(io::Error::other)?
    }
}

impl Place {
    fn abandoned(&self, below: &Path) -> io::Result<Vec<Staged>> {
        let mut found = Vec::new();
        let mut ahead = vec![(below.to_owned(), 0)];
        while let Some((directory, depth)) = ahead.pop() {
            for entry in existing(fs::read_dir(self.root.join(&directory)))?.into_iter().flatten() {
                let entry = entry?;
                let name = directory.join(entry.file_name());
                // A link is neither, and not followed.
                let kind = entry.file_type()?;
                if kind.is_dir() && depth < DEPTH_MAX {
                    ahead.push((name, depth + 1));
                } else if kind.is_file() {
                    found.extend(self.staged(name, &entry.file_name())?);
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// What lies under this name, if it is staged and nobody holds it.
    fn staged(&self, name: PathBuf, last: &OsString) -> io::Result<Option<Staged>> {
        let staged = last.to_str().and_then(target_of).is_some();
        let Some(name) = name.to_str().filter(|_| staged) else { return Ok(None) };
        let Some(target) = target_of(name) else { return Ok(None) };
        let path = self.root.join(name);
        let Some(metadata) = existing(fs::symlink_metadata(&path))? else { return Ok(None) };
        // Where that cannot be told, somebody may hold it.
        if self.fs.is_locked(&path).unwrap_or(true) {
            return Ok(None);
        }
        Ok(Some(Staged {
            name: name.to_owned(),
            target: ObjectPath::from(target),
            size: metadata.len(),
            modified: metadata.modified()?,
        }))
    }
}

/// Nothing where there is nothing any more: others make and remove names meanwhile.
fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn staged_names_are_told_from_others() {
        assert_eq!(name_of(Path::new("a/b.parquet"), 7), Path::new("a/b.parquet#7"));
        assert_eq!(target_of("a/b.parquet#7"), Some("a/b.parquet"));
        assert_eq!(target_of("a#1#20"), Some("a#1"));
        for name in ["a", "a#", "a#x1", "#7", "a#7 ", "a#-7"] {
            assert_eq!(target_of(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn what_nobody_holds_is_found_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("series/n/2024")).unwrap();
        fs::create_dir(root.join("other")).unwrap();
        for name in
            ["series/n/x.parquet#1", "series/n/2024/y#22", "other/z#3", "series/n/x.parquet"]
        {
            fs::write(root.join(name), "left").unwrap();
        }
        let living = root.join("series/n/w#4");
        let held = OsFileSystem.write_new(&living, &[Bytes::from_static(b"w")]).unwrap();

        let staged = StagedNames::at(root.to_owned());
        let names = |found: &[Staged]| found.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        let found = staged.abandoned("series").await.unwrap();
        assert_eq!(names(&found), ["series/n/2024/y#22", "series/n/x.parquet#1"]);
        assert_eq!((found[1].target.as_ref(), found[1].size), ("series/n/x.parquet", 4));
        // Somebody took it between the look and the removal.
        let late = Staged { name: "series/n/w#4".to_owned(), ..found[0].clone() };
        assert!(!staged.remove(&late).await.unwrap());
        for one in &found {
            assert!(staged.remove(one).await.unwrap());
            assert!(!staged.remove(one).await.unwrap());
        }
        drop(held);
        assert_eq!(names(&staged.abandoned("series").await.unwrap()), ["series/n/w#4"]);
        assert!(root.join("series/n/x.parquet").exists() && root.join("other/z#3").exists());
        assert!(staged.abandoned("nowhere").await.unwrap().is_empty());
        assert!(StagedNames::none().abandoned("series").await.unwrap().is_empty());
    }
}
