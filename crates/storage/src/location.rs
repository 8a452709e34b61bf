//! What a user may name as a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use url::Url;

use crate::durable::DurableLocal;
use crate::error::Error;

/// A place that can hold a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A local directory.
    Directory(PathBuf),
    /// This process's memory; every opening is a new, empty place.
    Memory,
}

impl Location {
    /// Connects to the place, which must exist.
    ///
    /// # Errors
    /// [`Error::Directory`] if the directory does not exist or cannot be read.
    pub fn open(&self) -> Result<Arc<dyn ObjectStore>, Error> {
        match self {
            Self::Directory(path) => Ok(Arc::new(DurableLocal::open(path)?)),
            Self::Memory => Ok(Arc::new(InMemory::new())),
        }
    }

    /// Connects to the place, making the directory if it is missing.
    ///
    /// # Errors
    /// [`Error::Directory`] if the directory cannot be made or read.
    pub fn create(&self) -> Result<Arc<dyn ObjectStore>, Error> {
        match self {
            Self::Directory(path) => Ok(Arc::new(DurableLocal::create(path)?)),
            Self::Memory => Ok(Arc::new(InMemory::new())),
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    /// Reads a directory's path, `file:///path` or `memory://`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| {
            Err(Error::Location { location: text.to_owned(), reason: reason.to_owned() })
        };
        if text.is_empty() {
            return refuse("it is empty; name a directory, file:///path or memory://");
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::Directory(PathBuf::from(text)));
        };
        match scheme {
            "memory" => Ok(Self::Memory),
            "file" => match Url::parse(text).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) => Ok(Self::Directory(path)),
                None => refuse("it is not a file URL with an absolute path"),
            },
            _ => refuse("this build opens directories, file:///path and memory:// only"),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("memory://"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_from_text() {
        assert_eq!("a/b".parse::<Location>().unwrap(), Location::Directory("a/b".into()));
        assert_eq!("file:///a/b".parse::<Location>().unwrap(), Location::Directory("/a/b".into()));
        assert_eq!("memory://".parse::<Location>().unwrap(), Location::Memory);
        assert!("s3://bucket".parse::<Location>().is_err());
        assert!("".parse::<Location>().is_err());
    }
}
