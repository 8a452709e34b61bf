//! What is stored and named by nothing.

use std::time::Duration;

use futures::TryStreamExt;
use tidelog_core::{FileId, WriteTime};
use tidelog_oplog::{LOG_DIRECTORY, LogCheck, PartRole};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{ObjectMeta, ObjectStore};

use super::report::{FsckReport, Orphan};
use crate::error::Error;

const SERIES_DIRECTORY: &str = "series";
/// Orphans that a report names.
const ORPHANS_NAMED_MAX: usize = 1000;

/// The data files that the log names, by the ids of their objects and in order.
pub(super) struct Known {
    /// Those that are part of their series.
    pub(super) live: Vec<FileId>,
    /// Those that were, and that a vacuum may delete.
    pub(super) replaced: Vec<FileId>,
}

/// Lists log parts and data files. What was put after the check had `begun` may be named by commits
/// that it has not read.
pub(super) async fn list(
    store: &dyn ObjectStore,
    begun: WriteTime,
    log: &LogCheck,
    known: &Known,
    report: &mut FsckReport,
) -> Result<(), Error> {
    let failed = |directory| move |error| Error::store("listing", directory, error);
    let mut listed = store.list(Some(&Path::from(LOG_DIRECTORY)));
    while let Some(meta) = listed.try_next().await.map_err(failed(LOG_DIRECTORY))? {
        match meta.location.filename().filter(|name| is_of_writes(name)).map(|n| log.role_of(n)) {
            None | Some(PartRole::Live) => {}
            Some(PartRole::Replaced) => {
                report.replaced_parts += 1;
                report.replaced_bytes += meta.size;
            }
            Some(_) => note(&meta, begun, report),
        }
    }
    let mut listed = store.list(Some(&Path::from(SERIES_DIRECTORY)));
    while let Some(meta) = listed.try_next().await.map_err(failed(SERIES_DIRECTORY))? {
        let stem = meta.location.filename().and_then(|name| name.strip_suffix(".parquet"));
        let id = stem.and_then(|stem| FileId::parse(stem).ok());
        let is_one_of = |ids: &[FileId]| id.is_some_and(|id| ids.binary_search(&id).is_ok());
        if is_one_of(&known.live) {
            continue;
        }
        if is_one_of(&known.replaced) {
            report.replaced_files += 1;
            report.replaced_file_bytes += meta.size;
        } else {
            note(&meta, begun, report);
        }
    }
    Ok(())
}

/// Commits, checkpoints and the clock of upkeep have been looked at, or hold nothing.
fn is_of_writes(name: &str) -> bool {
    name.starts_with("part-") || name.starts_with("probe-")
}

fn note(meta: &ObjectMeta, begun: WriteTime, report: &mut FsckReport) {
    let age = begun.micros().saturating_sub(meta.last_modified.timestamp_micros());
    let Ok(age) = u64::try_from(age).map(Duration::from_micros) else { return };
    report.orphan_count += 1;
    report.orphan_bytes += meta.size;
    if report.orphans.len() < ORPHANS_NAMED_MAX {
        report.orphans.push(Orphan { object: meta.location.to_string(), bytes: meta.size, age });
    }
}
