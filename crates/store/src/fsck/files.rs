//! Data files: whether each is there with its size, or is what was written, byte for byte.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use tidelog_core::FileId;
use tidelog_oplog::check::{MEND, RESTORE};
use tidelog_oplog::{FileRow, Finding, Hasher128};
use tidelog_storage::error::io_cause;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectStore, ObjectStoreExt};

use super::report::FsckReport;
use crate::error::Error;

/// Files that are asked for at once.
const ASKED_AT_ONCE: usize = 32;
/// Files that are read at once.
const READ_AT_ONCE: usize = 4;

/// Checks data files and remembers which the log names.
#[derive(Debug)]
pub(super) struct FileCheck {
    store: Arc<dyn ObjectStore>,
    deep: bool,
    known: Vec<FileId>,
}

impl FileCheck {
    pub(super) fn new(store: Arc<dyn ObjectStore>, deep: bool) -> Self {
        Self { store, deep, known: Vec::new() }
    }

    /// Checks live files; `told` hears of the bytes of each.
    pub(super) async fn check(
        &mut self,
        files: Vec<FileRow>,
        report: &mut FsckReport,
        mut told: impl FnMut(u64),
    ) -> Result<(), Error> {
        self.known.extend(files.iter().map(object_id));
        let (store, deep) = (Arc::clone(&self.store), self.deep);
        let checks = files.into_iter().map(move |file| {
            let store = Arc::clone(&store);
            async move {
                let finding = look_at(store.as_ref(), &file, deep).await?;
                Ok::<_, Error>((file, finding))
            }
        });
        let at_once = if self.deep { READ_AT_ONCE } else { ASKED_AT_ONCE };
        // In order, so that two checks of one store say the same.
        let mut checked = stream::iter(checks).buffered(at_once);
        while let Some((file, finding)) = checked.try_next().await? {
            report.files += 1;
            report.bytes += file.size;
            told(file.size);
            report.damage.extend(finding.map(|finding| of(&file, finding)));
        }
        Ok(())
    }

    /// The ids of the objects of all live files, in order.
    pub(super) fn into_known(mut self, report: &mut FsckReport) -> Vec<FileId> {
        self.known.sort_unstable();
        for pair in self.known.windows(2).filter(|pair| pair[0] == pair[1]) {
            let problem = format!("the log adds data file {} more than once", pair[0]);
            report.damage.push(Finding::new(problem, RESTORE));
        }
        self.known
    }
}

/// The id by which the object of a file is named: of one whose rows have all ended the log may speak
/// under another.
pub(super) fn object_id(file: &FileRow) -> FileId {
    let name = file.location.rsplit('/').next().and_then(|name| name.strip_suffix(".parquet"));
    name.and_then(|name| FileId::parse(name).ok()).unwrap_or(file.file)
}

fn of(file: &FileRow, finding: Finding) -> Finding {
    finding
        .with_object(file.location.as_ref())
        .with_path(file.path.as_str())
        .with_versions(file.min_version, file.max_version)
        .with_rows(file.rows)
}

/// What is wrong with a file. An error means that it cannot be known.
async fn look_at(
    store: &dyn ObjectStore,
    file: &FileRow,
    deep: bool,
) -> Result<Option<Finding>, Error> {
    let path = Path::from(file.location.as_ref());
    let found = if deep {
        read_problem(store, &path, file).await
    } else {
        store.head(&path).await.map(|meta| size_problem(meta.size, file))
    };
    match found {
        Ok(problem) => Ok(problem.map(|problem| Finding::new(problem, RESTORE))),
        Err(object_store::Error::NotFound { .. }) => {
            Ok(Some(Finding::new("it is missing", RESTORE)))
        }
        Err(error) if io_cause(&error).is_some_and(|io| io.raw_os_error().is_some()) => {
            Ok(Some(Finding::new(format!("it cannot be read: {error}"), MEND)))
        }
        Err(error) => Err(Error::store("checking", &file.location, error)),
    }
}

fn size_problem(size: u64, file: &FileRow) -> Option<String> {
    let problem = || format!("it has {size} bytes where the log says {}", file.size);
    (size != file.size).then(problem)
}

async fn read_problem(
    store: &dyn ObjectStore,
    path: &Path,
    file: &FileRow,
) -> Result<Option<String>, object_store::Error> {
    let found = store.get(path).await?;
    if let Some(problem) = size_problem(found.meta.size, file) {
        return Ok(Some(problem));
    }
    let mut hasher = Hasher128::default();
    let mut pieces = found.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    let problem = || "its bytes do not match its hash in the log".to_owned();
    Ok((hasher.finish() != file.hash).then(problem))
}
