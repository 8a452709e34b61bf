//! What a user may name as a store.

use std::fmt;
use std::path::{self, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use tidelog_core::Env;
use url::Url;

use crate::durable::DurableLocal;
use crate::error::Error;
use crate::fs::FileSystem;
use crate::options::{StorageOptions, is_secret};
use crate::remote;

const FORMS: &str = "a directory, file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix \
                     or az://container/prefix";

/// A place that can hold a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A local directory.
    Directory(PathBuf),
    /// This process's memory; every opening is a new, empty place.
    Memory,
    /// A bucket of a remote store, or what lies below a prefix in it.
    Bucket(Bucket),
}

/// Whose protocol a remote store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "azure" => Some(Self::Azure),
            _ => None,
        }
    }

    /// The scheme of its URLs.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket (in Azure: a container) and a prefix in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub(crate) provider: Provider,
    pub(crate) name: String,
    pub(crate) prefix: Path,
    pub(crate) options: StorageOptions,
}

impl Bucket {
    fn parse(provider: Provider, url: &Url) -> Result<Self, &'static str> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL must not hold credentials; put them into the environment or \
                        the storage options");
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err("it has a port or a fragment; name a server by ?endpoint=http://host:port");
        }
        let name = url.host_str().filter(|name| !name.is_empty());
        let name = name.ok_or("it names no bucket; write scheme://bucket/prefix")?;
        let prefix = Path::from_url_path(url.path()).map_err(|_| "its path is no object prefix")?;
        let mut options = StorageOptions::new();
        for (key, value) in url.query_pairs() {
            if is_secret(&key) {
                return Err("a URL must not hold credentials, as URLs are shown and kept; put \
                            them into the environment or the storage options");
            }
            options.set(&key, value);
        }
        Ok(Self { provider, name: name.to_owned(), prefix, options })
    }

    /// Whose protocol it speaks.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.name)?;
        if self.prefix.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl Location {
    /// Connects to the place, which must exist; of a directory files are changed through `files`. A remote
    /// store is not asked anything yet.
    ///
    /// # Errors
    /// [`Error::Directory`] if the directory does not exist or cannot be read; [`Error::Option`]
    /// and [`Error::Location`] if options are wrong or missing.
    pub fn open(
        &self,
        options: &StorageOptions,
        env: &Env,
        files: &Arc<dyn FileSystem>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        match self {
            Self::Directory(path) => {
                options.refuse_for("a directory")?;
                Ok(Arc::new(DurableLocal::open_on(path, Arc::clone(files))?))
            }
            _ => self.create(options, env, files),
        }
    }

    /// Connects to the place, making the directory if it is missing; files are changed through `files`.
    /// Buckets are not made.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the directory cannot be made.
    pub fn create(
        &self,
        options: &StorageOptions,
        env: &Env,
        files: &Arc<dyn FileSystem>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        match self {
            Self::Directory(path) => {
                options.refuse_for("a directory")?;
                Ok(Arc::new(DurableLocal::create_on(path, Arc::clone(files))?))
            }
            Self::Memory => {
                options.refuse_for("memory://")?;
                Ok(Arc::new(InMemory::new()))
            }
            Self::Bucket(bucket) => remote::connect(bucket, options, env),
        }
    }
}

impl Location {
    /// The directory, if it is one.
    #[must_use]
    pub fn local_path(&self) -> Option<&path::Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Memory | Self::Bucket(_) => None,
        }
    }

    /// Whether it lies on other machines.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }
}

impl FromStr for Location {
    type Err = Error;

    /// Reads a directory's path, or a URL of one of the schemes `file`, `memory`, `s3`, `gs`, `az`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse =
            |reason: &str| Error::Location { location: shown(text), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(refuse(&format!("it is empty; name {FORMS}")));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::Directory(PathBuf::from(text)));
        };
        if scheme == "memory" {
            return Ok(Self::Memory);
        }
        if scheme == "file" {
            let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| refuse("it is not a file URL with an absolute path"))?;
            return Ok(Self::Directory(path));
        }
        let Some(provider) = Provider::of_scheme(scheme) else {
            return Err(refuse(&format!("its scheme is not known; name {FORMS}")));
        };
        let url = Url::parse(text).map_err(|_| refuse("it is not a URL"))?;
        Bucket::parse(provider, &url).map(Self::Bucket).map_err(refuse)
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
            Self::Bucket(bucket) => write!(f, "{bucket}"),
        }
    }
}

/// What a user typed as a location, without the parts of a URL in which people hide secrets.
#[must_use]
pub fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = rest.get(..end).unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{host}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(text: &str) -> Bucket {
        match text.parse().unwrap() {
            Location::Bucket(bucket) => bucket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn locations_are_read_from_text() {
        assert_eq!("a/b".parse::<Location>().unwrap(), Location::Directory("a/b".into()));
        assert_eq!("file:///a/b".parse::<Location>().unwrap(), Location::Directory("/a/b".into()));
        assert_eq!("memory://".parse::<Location>().unwrap(), Location::Memory);
        for bad in ["", "ftp://bucket", "file://a/b", "s3://", "s3:///a", "gs://b:1/a", "s3://b#f"]
        {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }

    #[test]
    fn buckets_have_a_provider_a_prefix_and_options() {
        let found = bucket("s3://data/a/b%20c/?endpoint=http%3A%2F%2F127.0.0.1%3A9&Region=eu");
        assert_eq!(found.provider, Provider::S3);
        assert_eq!((found.name.as_str(), found.prefix.as_ref()), ("data", "a/b c"));
        assert_eq!(found.options.get("endpoint"), Some("http://127.0.0.1:9"));
        assert_eq!(found.options.get("region"), Some("eu"));
        assert_eq!(found.to_string(), "s3://data/a/b c");
        assert_eq!(bucket("gs://data").to_string(), "gs://data");
        assert_eq!(bucket("az://data/x").provider, Provider::Azure);
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_not_repeated() {
        for text in [
            "s3://id:canary@bucket/a",
            "s3://canary@bucket/a",
            "s3://bucket/a?secret_access_key=canary",
            "az://bucket?sas_token=canary",
            "s3://bucket?TOKEN=canary",
            "ftp://id:canary@host/a?key=canary",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
        let error = "s3://b?token=x".parse::<Location>().unwrap_err().to_string();
        assert!(error.contains("environment"), "{error}");
    }

    #[test]
    fn options_mean_nothing_for_local_places() {
        let options = StorageOptions::new().with("region", "eu");
        for text in ["memory://", "/nonexistent/nowhere"] {
            let location: Location = text.parse().unwrap();
            let files: Arc<dyn FileSystem> = Arc::new(crate::fs::OsFileSystem);
            let error = location.open(&options, &Env::default(), &files).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{error}");
        }
    }
}
