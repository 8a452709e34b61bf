//! The write-ahead log of a store: whether it is whole, and goes on where the store's log ends.
//!
//! It is read while its owner may write. So the log ahead is read first and the store's log second: what
//! the owner has committed or let go of in between is in the store's log by then, and is left out of the
//! comparison. Where a segment goes away while it is read, all is read anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_core::{Env, NodeId, TreePath, Version, WalId};
use tidelog_oplog::{Finding, Log, Snapshot};
use tidelog_storage::object_store::ObjectStore;
use tidelog_wal::{Damage, Holder, Tail};

use super::FsckReport;
use crate::error::Error;
use crate::owner::{TierOptions, decode_record};

/// Looks at a log whose owner lets go of what is read.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

const RESTORE: &str = "restore it from a backup, or cut the log there with `tidelog wal repair`";
const LATER: &str = "check again when its owner has closed it";
const MEND: &str = "mend the disk or the rights to it";
const RECOVER: &str = "bring them in with `tidelog wal recover`";

/// What a write-ahead log holds.
struct Look {
    id: WalId,
    owner: Option<Holder>,
    records: u64,
    damage: Option<Finding>,
    facts: Vec<Fact>,
}

/// Versions of one series in one record.
struct Fact {
    seq: u64,
    node: NodeId,
    path: TreePath,
    first: Version,
    last: Version,
    rows: u64,
}

/// Checks the write-ahead logs that may be the store's.
pub(super) async fn check(
    store: Arc<dyn ObjectStore>,
    env: &Env,
    options: &TierOptions,
    report: &mut FsckReport,
) -> Result<(), Error> {
    // A log that does not open is damaged, which has been told.
    let log = Log::open(store, env.clone()).await.ok();
    let mut claim_seen = false;
    let mut seen = Vec::new();
    for directory in options.places() {
        let before = log.as_ref().map(Log::snapshot);
        let Some(look) = look(options, directory, before.as_ref(), report).await? else { continue };
        report.wal_records += look.records;
        report.damage.extend(look.damage.clone());
        seen.push(look.id);
        if let Some(log) = &log {
            let snapshot = log.refresh().await?;
            claim_seen |= snapshot.epoch().is_some_and(|epoch| epoch.wal == look.id);
            compare(log, &snapshot, directory, &look, report).await?;
        }
    }
    if let Some(log) = &log {
        tell_unseen(&log.snapshot(), claim_seen, &seen, report);
    }
    Ok(())
}

/// Reads the log in `directory`, if there is one.
async fn look(
    options: &TierOptions,
    directory: &Path,
    snapshot: Option<&Snapshot>,
    report: &mut FsckReport,
) -> Result<Option<Look>, Error> {
    for left in (0..LOOKS).rev() {
        let (tier, place, snapshot) = (options.clone(), directory.to_owned(), snapshot.cloned());
        let looked = tokio::task::spawn_blocking(move || read(&tier, &place, snapshot.as_ref()));
        match looked.await.map_err(|_| Error::Closed)? {
            Ok(look) if left > 0 && look.owner.is_some() && look.damage.is_some() => {}
            Ok(look) => return Ok(Some(look)),
            Err(Error::Wal(error)) => match error.as_ref() {
                tidelog_wal::Error::NoLog { .. } => return Ok(None),
                tidelog_wal::Error::NewerFormat { .. } => return Err(Error::Wal(error)),
                _ if left > 0 => {}
                tidelog_wal::Error::Damaged(damage) => {
                    report.damage.push(damaged(damage));
                    return Ok(None);
                }
                other => {
                    let object = directory.display().to_string();
                    let problem = format!("the write-ahead log cannot be read: {other}");
                    match is_owned(options, directory).await? {
                        true => report.notes.push(Finding::new(problem, LATER).with_object(object)),
                        false => {
                            report.damage.push(Finding::new(problem, MEND).with_object(object))
                        }
                    }
                    return Ok(None);
                }
            },
            Err(error) => {
                let object = directory.display().to_string();
                report.damage.push(Finding::new(error.to_string(), RESTORE).with_object(object));
                return Ok(None);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}

async fn is_owned(options: &TierOptions, directory: &Path) -> Result<bool, Error> {
    let (fs, directory) = (Arc::clone(&options.file_system), directory.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        matches!(tidelog_wal::is_locked(fs.as_ref(), &directory), Ok(Some(_)))
    });
    looked.await.map_err(|_| Error::Closed)
}

fn read(
    options: &TierOptions,
    directory: &Path,
    snapshot: Option<&Snapshot>,
) -> Result<Look, Error> {
    let fs = Arc::clone(&options.file_system);
    let owner = tidelog_wal::is_locked(fs.as_ref(), directory)?;
    let found = tidelog_wal::inspect(fs.as_ref(), directory)?;
    let mut look = Look {
        id: found.id,
        owner,
        records: found.segments.iter().map(|segment| segment.records).sum(),
        damage: None,
        facts: Vec::new(),
    };
    if let Tail::Damaged(damage) = &found.tail {
        look.damage = Some(damaged(damage));
        return Ok(look);
    }
    let covered = snapshot.map_or(0, |snapshot| snapshot.covered(look.id));
    let reading = tidelog_wal::read(fs, directory)?;
    for record in reading.records(covered, &options.wal) {
        let record = record?;
        for (series, batch) in decode_record(record.seq, &record.payload)?.series {
            let versions = i64::try_from(series.versions.len()).unwrap_or(i64::MAX);
            look.facts.push(Fact {
                seq: record.seq,
                node: series.node,
                path: series.path,
                first: series.base,
                last: Version::new(series.base.number() + versions - 1),
                rows: batch.num_rows() as u64,
            });
        }
    }
    Ok(look)
}

fn damaged(damage: &Damage) -> Finding {
    let problem = format!(
        "from byte {} on it is not what was written ({}); records from {} on were durable there",
        damage.offset, damage.found, damage.seq
    );
    Finding::new(problem, RESTORE).with_object(damage.file.display().to_string())
}

/// Compares what is not committed with what is.
async fn compare(
    log: &Log,
    snapshot: &Snapshot,
    directory: &Path,
    look: &Look,
    report: &mut FsckReport,
) -> Result<(), Error> {
    let covered = snapshot.covered(look.id);
    let facts: Vec<&Fact> = look.facts.iter().filter(|fact| fact.seq > covered).collect();
    let Some(last) = facts.last().map(|fact| fact.seq) else { return Ok(()) };
    report.wal_uncovered += last - covered;
    let rows = facts.iter().map(|fact| fact.rows).sum();
    let object = directory.display().to_string();
    let is_claimed = snapshot.epoch().is_some_and(|epoch| epoch.wal == look.id);
    if is_claimed {
        if look.owner.is_none() {
            let problem = "its owner has died, and not all that it acknowledged is committed";
            let remedy = "whoever writes next on this machine brings it in";
            report.notes.push(Finding::new(problem, remedy).with_object(object).with_rows(rows));
        }
        return check_versions(log, snapshot, directory, &facts, report).await;
    }
    let problem = match snapshot.taken_over(look.id) {
        Some(end) => format!("acknowledged by a writer whose store was taken over by {end}"),
        None => "acknowledged under a claim that the store's log does not know".to_owned(),
    };
    report.notes.push(Finding::new(problem, RECOVER).with_object(object).with_rows(rows));
    Ok(())
}

/// Checks that the versions of each series follow those that are committed, without a gap.
async fn check_versions(
    log: &Log,
    snapshot: &Snapshot,
    directory: &Path,
    facts: &[&Fact],
    report: &mut FsckReport,
) -> Result<(), Error> {
    let mut heads: BTreeMap<NodeId, Version> = BTreeMap::new();
    for fact in facts {
        let head = match heads.get(&fact.node) {
            Some(head) => *head,
            None if snapshot.tree().node(fact.node).is_none() => Version::NONE,
            None => log.series(snapshot, fact.node).await?.head(),
        };
        if fact.first != head.next() {
            let problem = format!(
                "record {} of the write-ahead log goes on with {} after {head}",
                fact.seq, fact.first
            );
            let remedy = "restore the write-ahead log or the store from a backup";
            let finding = Finding::new(problem, remedy)
                .with_object(directory.display().to_string())
                .with_path(fact.path.to_string())
                .with_versions(fact.first, fact.last)
                .with_rows(fact.rows);
            report.damage.push(finding);
        }
        heads.insert(fact.node, fact.last);
    }
    Ok(())
}

/// Tells of write-ahead logs that may hold rows and are not to be seen from here.
fn tell_unseen(snapshot: &Snapshot, claim_seen: bool, seen: &[WalId], report: &mut FsckReport) {
    if let Some(epoch) = snapshot.epoch().filter(|_| !claim_seen) {
        let problem = format!(
            "the store is written by {epoch} alone, whose write-ahead log {} is not to be seen here; it \
             may hold rows that are not committed",
            epoch.wal
        );
        let remedy = "name its directory (`--wal-dir`), or check where it lies";
        report.notes.push(Finding::new(problem, remedy));
    }
    for end in snapshot.all_taken_over().filter(|end| !seen.contains(&end.wal)) {
        let problem = format!(
            "the store was taken over by {end}; what the writer before had not committed is in its \
             write-ahead log {}, which is not to be seen here",
            end.wal
        );
        let remedy = "bring it in with `tidelog wal recover`, where that log lies";
        report.notes.push(Finding::new(problem, remedy));
    }
}
