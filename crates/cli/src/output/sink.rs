//! Where bytes go: stdout, or a file that takes its name only when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 64 * 1024;

/// A place for bytes.
#[derive(Debug)]
pub(crate) struct Sink {
    bytes: BufWriter<Target>,
    failure: Failure,
}

/// Why bytes could not be written. Writers of formats tell it as text only, or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    pub(crate) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let copy = error
                .raw_os_error()
                .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(copy);
        }
        result
    }
}

#[derive(Debug)]
enum Target {
    Stdout(Stdout),
    /// A device or pipe, which is written as it is.
    Device(File, PathBuf),
    File(NewFile),
}

/// A file under a temporary name beside its own; removed unless it is completed.
#[derive(Debug)]
struct NewFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    complete: bool,
}

/// Opens the place that the user named; stdout if none or `-`.
pub(crate) fn open(path: Option<&Path>) -> Result<Sink> {
    let Some(path) = path.filter(|path| path.as_os_str() != "-") else { return Ok(Sink::stdout()) };
    let target = match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(facts) if !facts.is_file() => OpenOptions::new()
            .write(true)
            .open(path)
            .map(|file| Target::Device(file, path.to_owned())),
        // A link stays a link: what it leads to is replaced.
        Ok(facts) => fs::canonicalize(path)
            .and_then(|real| NewFile::create(real, Some(facts.permissions())))
            .map(Target::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            NewFile::create(path.to_owned(), None).map(Target::File)
        }
        Err(error) => Err(error),
    };
    let target = target.map_err(|error| Error::file("writing", path, error))?;
    Ok(Sink::new(target))
}

impl Sink {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(Target::Stdout(io::stdout()))
    }

    fn new(target: Target) -> Self {
        Self { bytes: BufWriter::with_capacity(BUFFER_BYTES, target), failure: Failure::default() }
    }

    /// Where failures to write are noted.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Whether it is something else than stdout.
    pub(crate) fn is_file(&self) -> bool {
        !matches!(self.bytes.get_ref(), Target::Stdout(_))
    }

    /// The file's name for messages; none for stdout.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self.bytes.get_ref() {
            Target::Stdout(_) => None,
            Target::Device(_, path) => Some(path.clone()),
            Target::File(file) => Some(file.path.clone()),
        }
    }

    /// Writes out what is buffered and gives a new file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        let path = self.path();
        let done = self.bytes.flush().and_then(|()| match self.bytes.get_mut() {
            Target::File(file) => file.complete(),
            Target::Stdout(_) | Target::Device(..) => Ok(()),
        });
        done.map_err(|error| failed(path.as_deref(), error))
    }
}

/// The error for bytes that could not be written.
pub(crate) fn failed(path: Option<&Path>, source: io::Error) -> Error {
    match path {
        None => Error::Stdout { source },
        Some(path) => Error::file("writing", path, source),
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.failure.note(self.bytes.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.failure.note(self.bytes.flush())
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::Device(file, _) => file.write(bytes),
            Self::File(new) => new.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::Device(file, _) => file.flush(),
            Self::File(new) => new.file.flush(),
        }
    }
}

impl NewFile {
    fn create(path: PathBuf, permissions: Option<fs::Permissions>) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let new = Self { file, temporary, path, complete: false };
        if let Some(permissions) = permissions {
            new.file.set_permissions(permissions)?;
        }
        Ok(new)
    }

    fn complete(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.complete = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.complete {
            // The failure that led here is being reported already.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        let mut sink = open(Some(&path)).unwrap();
        sink.write_all(b"half").unwrap();
        sink.flush().unwrap();
        assert!(!path.exists());
        drop(sink);
        assert!(names(directory.path()).is_empty());
        let mut sink = open(Some(&path)).unwrap();
        sink.write_all(b"all").unwrap();
        sink.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
        assert_eq!(names(directory.path()), ["rows.csv"]);
    }

    #[test]
    fn a_file_that_is_there_stays_until_the_new_one_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        fs::write(&path, "old").unwrap();
        drop(open(Some(&path)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let missing = directory.path().join("no/rows.csv");
        assert_eq!(open(Some(&missing)).unwrap_err().exit_code(), 4);
        assert_eq!(open(Some(directory.path())).unwrap_err().exit_code(), 9);
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_links_are_written_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut sink = open(Some(&link)).unwrap();
        sink.write_all(b"new").unwrap();
        sink.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(open(Some(Path::new("/dev/null"))).unwrap().commit().is_ok());
    }
}
