//! Whether what the log says of snapshots and horizons holds together.

use tidelog_core::{NodeId, Version};
use tidelog_oplog::{Finding, History, Horizon, StoreOp, StoreRow};

use super::report::FsckReport;

const RESTORE_LOG: &str = "restore the log (`_oplog`) from a backup";

/// The rows about the history, gathered while the log passes by, newest first.
#[derive(Debug, Default)]
pub(super) struct HistoryCheck {
    rows: Vec<StoreRow>,
}

impl HistoryCheck {
    pub(super) fn take(&mut self, row: StoreRow) {
        match row.op {
            StoreOp::Snapshot(_) | StoreOp::DropSnapshot(_) | StoreOp::Horizon(_) => {
                self.rows.push(row);
            }
            StoreOp::Vacuum { .. }
            | StoreOp::Claim(_)
            | StoreOp::Release(_)
            | StoreOp::TakeOver(_) => {}
        }
    }

    /// `newest` tells the newest version of a series. Without some of its rows the history contradicts
    /// itself, which has its finding already.
    pub(super) fn finish(
        mut self,
        is_whole: bool,
        newest: impl Fn(NodeId) -> Option<Version>,
        report: &mut FsckReport,
    ) {
        if !is_whole {
            return;
        }
        self.rows.sort_by_key(|row| (row.commit, row.timestamp));
        let mut history = History::default();
        for row in self.rows {
            if let Err(reason) = history.apply(&row) {
                let problem =
                    format!("commit {} contradicts what came before it: {reason}", row.commit);
                report.damage.push(Finding::new(problem, RESTORE_LOG));
            }
            let StoreOp::Horizon(Horizon { node, path, first }) = &row.op else { continue };
            let newest = newest(*node).unwrap_or_default();
            if *first > newest.next() {
                let problem = format!(
                    "commit {} lets go of versions that no part of the log has",
                    row.commit
                );
                let finding = Finding::new(problem, RESTORE_LOG).with_path(path.as_str());
                report.damage.push(finding.with_versions(newest.next(), *first));
            }
        }
        report.snapshots = history.snapshots().count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::{CommitVersion, SnapshotName, TreePath, WriteTime};
    use uuid::Uuid;

    use super::*;

    fn said(ops: Vec<StoreOp>) -> Vec<String> {
        let mut check = HistoryCheck::default();
        let mut report = FsckReport::default();
        for (commit, op) in (1..).zip(ops).collect::<Vec<_>>().into_iter().rev() {
            let timestamp = WriteTime::from_micros(commit);
            check.take(StoreRow { op, timestamp, commit: CommitVersion::new(commit) });
        }
        check.finish(true, |_| Some(Version::new(5)), &mut report);
        report.damage.iter().map(ToString::to_string).collect()
    }

    fn horizon(first: i64) -> StoreOp {
        let node = NodeId::from_uuid(Uuid::from_u128(7));
        let path = TreePath::parse("/a").unwrap();
        StoreOp::Horizon(Horizon { node, path, first: Version::new(first) })
    }

    #[test]
    fn a_history_that_contradicts_itself_is_told() {
        let name = || SnapshotName::parse("a").unwrap();
        let (make, drop) = (|| StoreOp::Snapshot(name()), || StoreOp::DropSnapshot(name()));
        assert_eq!(said(vec![make(), drop(), make(), horizon(6)]), [] as [String; 0]);
        assert!(said(vec![make(), make()])[0].contains("commit 2 contradicts"));
        assert!(said(vec![drop()])[0].contains("commit 1 contradicts"));
        assert!(said(vec![horizon(7)])[0].contains("/a, v6…v7"), "{:?}", said(vec![horizon(7)]));
    }
}
