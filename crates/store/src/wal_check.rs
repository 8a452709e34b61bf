//! Looking at the write-ahead log of a store, and cutting a damaged one.

use std::path::{Path, PathBuf};

use tidelog_core::Env;
use tidelog_oplog::Snapshot;
use tidelog_storage::FileSystem;
use tidelog_wal::{Damage, Holder, Report, SegmentReport};
use tokio::task::spawn_blocking;

use crate::error::Error;
use crate::owner::TierOptions;

/// What a write-ahead log holds and in what state it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WalReport {
    /// Its directory.
    pub directory: PathBuf,
    /// Who has it open; what is said of its end may then change while it is read.
    pub owner: Option<Holder>,
    /// Segments, and how it ends.
    pub log: Report,
    /// The last record whose rows are committed to the store, 0 if none is; absent if the store cannot
    /// be opened.
    pub covered: Option<u64>,
}

impl WalReport {
    /// Intact records whose rows are not committed to the store; `None` if the store cannot be opened.
    #[must_use]
    pub fn uncovered_records(&self) -> Option<u64> {
        let covered = self.covered?;
        Some(self.log.segments.iter().map(|segment| records_after(segment, covered)).sum())
    }
}

fn records_after(segment: &SegmentReport, covered: u64) -> u64 {
    let next = segment.first_seq.saturating_add(segment.records);
    next.saturating_sub(segment.first_seq.max(covered.saturating_add(1)))
}

/// What a repair did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WalRepair {
    /// The log's directory.
    pub directory: PathBuf,
    /// The damage that was found; none if the log was whole, and nothing was done.
    pub damage: Option<Damage>,
    /// Whether the log's id was written anew, from a segment.
    pub id_restored: bool,
    /// Files that hold what was cut out of the log, with their bytes.
    pub cut: Vec<(PathBuf, u64)>,
    /// The first and last number of records that are lost to the log. None if nothing is lost, or if
    /// nothing tells which they were.
    pub lost: Option<(u64, u64)>,
    /// The last record whose rows are committed to the store, so that nothing up to it is lost; absent
    /// if the store cannot be opened.
    pub covered: Option<u64>,
}

impl TierOptions {
    fn directory(&self) -> Result<&Path, Error> {
        self.wal_directory.as_deref().ok_or(Error::NoWalDirectory)
    }
}

/// Says what is in the write-ahead log that `options` name; `snapshot` is the newest state of its
/// store, if that can be read. Takes no lock and changes nothing.
///
/// # Errors
/// If there is no log, not even its id can be read, its format is newer, or it cannot be read. Other
/// damage is in the report.
pub async fn inspect_wal(
    options: TierOptions,
    snapshot: Option<Snapshot>,
) -> Result<WalReport, Error> {
    let inspected = spawn_blocking(move || inspect(&options, snapshot.as_ref()));
    inspected.await.map_err(|_| Error::Closed)?
}

fn inspect(options: &TierOptions, snapshot: Option<&Snapshot>) -> Result<WalReport, Error> {
    let (fs, directory) = (options.file_system.as_ref(), options.directory()?);
    let log = tidelog_wal::inspect(fs, directory)?;
    Ok(WalReport {
        directory: directory.to_owned(),
        owner: tidelog_wal::is_locked(fs, directory)?,
        covered: snapshot.map(|snapshot| snapshot.covered(log.id)),
        log,
    })
}

/// Cuts the write-ahead log that `options` name at its first damage; what is cut is put aside.
///
/// # Errors
/// If there is no log, its owner lives, its format is newer, or it cannot be read or written.
pub async fn repair_wal(
    options: TierOptions,
    env: Env,
    snapshot: Option<Snapshot>,
) -> Result<WalRepair, Error> {
    let repaired = spawn_blocking(move || repair(&options, &env, snapshot.as_ref()));
    repaired.await.map_err(|_| Error::Closed)?
}

fn repair(
    options: &TierOptions,
    env: &Env,
    snapshot: Option<&Snapshot>,
) -> Result<WalRepair, Error> {
    let (fs, directory) = (options.file_system.as_ref(), options.directory()?);
    let repaired = tidelog_wal::repair(fs, directory, env)?;
    // Of a log that was put aside whole nothing is left to ask.
    let id = tidelog_wal::inspect(fs, directory).ok().map(|report| report.id);
    let covered = snapshot.zip(id).map(|(snapshot, id)| snapshot.covered(id));
    let with_bytes = |file: PathBuf| {
        let bytes = length(fs, &file);
        (file, bytes)
    };
    Ok(WalRepair {
        directory: directory.to_owned(),
        damage: repaired.damage,
        id_restored: repaired.id_restored,
        cut: repaired.cut.into_iter().map(with_bytes).collect(),
        lost: repaired.lost,
        covered,
    })
}

/// The bytes of a file; 0 if that cannot be told.
fn length(fs: &dyn FileSystem, file: &Path) -> u64 {
    fs.open_read(file).and_then(|file| file.length()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_not_covered_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            TierOptions { wal_directory: Some(dir.path().to_owned()), ..TierOptions::default() };
        let mut wal = tidelog_wal::Wal::open(
            std::sync::Arc::clone(&options.file_system),
            dir.path(),
            &Env::default(),
            options.wal.clone(),
        )
        .unwrap();
        let payloads: Vec<_> = (0..5)
            .map(|_| tidelog_wal::Payload::new(vec![bytes::Bytes::from_static(b"x")]))
            .collect();
        wal.append(&payloads).unwrap();
        wal.sync().unwrap();
        let mut report = inspect(&options, None).unwrap();
        assert!(report.owner.is_some());
        assert_eq!(report.uncovered_records(), None);
        for (covered, uncovered) in [(0, 5), (3, 2), (5, 0), (9, 0)] {
            report.covered = Some(covered);
            assert_eq!(report.uncovered_records(), Some(uncovered), "{covered}");
        }
        let refused = repair(&options, &Env::default(), None).unwrap_err();
        assert_eq!(refused.kind(), tidelog_core::ErrorKind::Conflict);
    }
}
