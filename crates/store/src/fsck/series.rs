//! What the rows of the log say of series, checked while they pass by, newest first.
//!
//! Of each series it is known which versions there are (a few spans), and of the commit that is
//! passing by, which rows its versions and its files have. Rows of files that have gone lie aside and pass by
//! before those of their commits; of each a few words are kept until then.

use std::collections::{HashMap, HashSet};

use tidelog_core::{CommitVersion, FileId, NodeId, TreePath, Version};
use tidelog_oplog::{EntryType, FileOp, FileRow, Finding, Row, Tree, TreeOp, TreeRow, VersionRow};

use super::files::object_id;
use super::report::FsckReport;

const RESTORE_LOG: &str = "restore the log (`_oplog`) from a backup";

/// The versions of all series.
#[derive(Debug)]
pub(super) struct SeriesCheck {
    nodes: HashMap<NodeId, Node>,
    tree: Vec<TreeRow>,
    /// Files whose removal has been seen, and whose rows come later.
    removed: HashSet<FileId>,
    /// Files that were part of their series and are so no more.
    replaced: Vec<FileId>,
    /// What one commit did to a series, while its rows pass by.
    open: HashMap<NodeId, Balance>,
    /// The series whose rows may go on in the part that comes next.
    carried: Option<NodeId>,
    /// Rows of files that commits added which have not passed by.
    aside: HashMap<(NodeId, CommitVersion), Vec<InFile>>,
    /// Whether the rows that pass by lie aside, and whether all that do could be read.
    is_aside: bool,
    is_aside_whole: bool,
    /// Whether all rows of the log have been seen, and those of the tree.
    is_whole: bool,
    is_tree_whole: bool,
}

#[derive(Debug)]
struct Node {
    /// As the newest row that names one says.
    path: TreePath,
    versions: Spans,
    /// The highest version that a file has rows of.
    highest_in_files: Version,
}

/// Rows of versions and files that one commit added to one series.
#[derive(Debug, Default)]
struct Balance {
    commit: CommitVersion,
    versions: Vec<(Version, u64)>,
    files: Vec<InFile>,
}

/// The first and the last version that a file has rows of, and how many rows.
type InFile = (Version, Version, u64);

impl SeriesCheck {
    pub(super) fn new(is_whole: bool) -> Self {
        Self {
            nodes: HashMap::new(),
            tree: Vec::new(),
            removed: HashSet::new(),
            replaced: Vec::new(),
            open: HashMap::new(),
            carried: None,
            aside: HashMap::new(),
            is_aside: false,
            is_aside_whole: true,
            is_whole,
            is_tree_whole: is_whole,
        }
    }

    /// A part cannot be read: what its rows would have settled stays open.
    pub(super) fn lose_part(&mut self, has_tree: bool, is_aside: bool) {
        self.is_whole = false;
        self.is_aside_whole &= !is_aside;
        self.is_tree_whole &= !has_tree;
        self.open.clear();
        self.carried = None;
    }

    pub(super) fn begin_part(&mut self, rows: &[Row], continues: bool, is_aside: bool) {
        self.is_aside = is_aside;
        self.carried = rows.first().and_then(Row::node).filter(|_| continues);
    }

    pub(super) fn end_part(&mut self, report: &mut FsckReport) {
        let carried = self.carried.take();
        let open = std::mem::take(&mut self.open);
        for (id, balance) in open {
            if carried == Some(id) {
                self.open.insert(id, balance);
            } else {
                self.settle(id, &balance, report);
            }
        }
    }

    pub(super) fn take_tree(&mut self, row: TreeRow) {
        self.tree.push(row);
    }

    pub(super) fn take_version(&mut self, row: &VersionRow, report: &mut FsckReport) {
        report.versions += 1;
        self.turn_to(row.node, row.commit, report);
        let node = self.node(row.node, &row.path);
        if !node.versions.insert(row.version.number()) {
            let problem = "the log has this version more than once";
            report.damage.push(finding(problem, &row.path, row.version, row.version));
        }
        let balance = self.open.entry(row.node).or_default();
        balance.versions.push((row.version, row.rows));
    }

    /// The file, if it is live.
    pub(super) fn take_file(&mut self, row: FileRow, report: &mut FsckReport) -> Option<FileRow> {
        if row.op == FileOp::Remove {
            self.removed.insert(row.file);
            return None;
        }
        let in_file = (row.min_version, row.max_version, row.rows);
        if self.is_aside {
            self.aside.entry((row.node, row.commit)).or_default().push(in_file);
        } else {
            self.turn_to(row.node, row.commit, report);
            self.open.entry(row.node).or_default().files.push(in_file);
        }
        let node = self.node(row.node, &row.path);
        node.highest_in_files = node.highest_in_files.max(row.max_version);
        if self.removed.remove(&row.file) {
            self.replaced.push(object_id(&row));
            return None;
        }
        Some(row)
    }

    /// Whether all rows of the log have been seen.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The newest version of a series.
    pub(super) fn newest(&self, id: NodeId) -> Option<Version> {
        self.nodes.get(&id).map(|node| node.versions.newest())
    }

    fn node(&mut self, id: NodeId, path: &TreePath) -> &mut Node {
        self.nodes.entry(id).or_insert_with(|| Node {
            path: path.clone(),
            versions: Spans::default(),
            highest_in_files: Version::NONE,
        })
    }

    /// Settles what an earlier row of the series left open, if that was another commit's.
    fn turn_to(&mut self, id: NodeId, commit: CommitVersion, report: &mut FsckReport) {
        let balance = self.open.entry(id).or_default();
        if balance.commit == commit {
            return;
        }
        let done = std::mem::replace(balance, Balance { commit, ..Balance::default() });
        self.settle(id, &done, report);
    }

    /// Compares rows of the versions of one commit with rows of the files that it added.
    fn settle(&mut self, id: NodeId, balance: &Balance, report: &mut FsckReport) {
        let aside = self.aside.remove(&(id, balance.commit)).unwrap_or_default();
        // What lies aside and is lost cannot be told from what never was.
        if balance.versions.is_empty() || !self.is_aside_whole {
            return;
        }
        let Some(node) = self.nodes.get(&id) else { return };
        let commit = balance.commit;
        // Files of earlier versions stand for others that the commit removes.
        let first = balance.versions.iter().map(|(version, _)| *version).min().unwrap_or_default();
        let all = || balance.files.iter().chain(&aside);
        let files = || all().filter(|(_, max, _)| *max >= first);
        let mut wrong = |first: Version, last: Version, rows: u64, in_files: u64| {
            let problem = format!(
                "commit {commit} says that {rows} rows were added, its data files hold {in_files}"
            );
            report.damage.push(finding(&problem, &node.path, first, last).with_rows(rows));
        };
        let shared = files().filter(|(min, max, _)| min != max);
        let shared: Vec<_> = shared.map(|(min, max, _)| *min..=*max).collect();
        for (version, rows) in &balance.versions {
            let own = files().filter(|(min, max, _)| min == version && max == version);
            let in_files: u64 = own.map(|(_, _, rows)| *rows).sum();
            let is_shared = shared.iter().any(|range| range.contains(version));
            if in_files != *rows && !is_shared {
                wrong(*version, *version, *rows, in_files);
            }
        }
        let rows: u64 = balance.versions.iter().map(|(_, rows)| *rows).sum();
        let in_files: u64 = files().map(|(_, _, rows)| *rows).sum();
        if rows != in_files && !shared.is_empty() {
            let versions = balance.versions.iter().map(|(version, _)| *version);
            let first = versions.clone().min().unwrap_or_default();
            wrong(first, versions.max().unwrap_or_default(), rows, in_files);
        }
    }

    /// Looks at each series as a whole, after the last row. Returns the files that are no part of their
    /// series any more, in order; they may be there or not.
    pub(super) fn finish(mut self, report: &mut FsckReport) -> Vec<FileId> {
        for (id, balance) in std::mem::take(&mut self.open) {
            self.settle(id, &balance, report);
        }
        let created = self.replay_tree(report);
        let without_version = created.iter().filter(|id| !self.nodes.contains_key(id));
        report.series = (self.nodes.len() + without_version.count()) as u64;
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|(id, node)| (node.path.clone(), **id));
        for (id, node) in nodes {
            check_node(node, report);
            if self.is_tree_whole && !created.contains(id) {
                let newest = node.versions.newest();
                let problem = format!("the log has versions of node {id}, which was never created");
                report.damage.push(finding(&problem, &node.path, Version::FIRST, newest));
            }
        }
        if self.is_whole
            && let Some(file) = self.removed.iter().min()
        {
            let problem = format!(
                "the log removes {} data files that it never added, {file} among them",
                self.removed.len()
            );
            report.damage.push(Finding::new(problem, RESTORE_LOG));
        }
        self.replaced.sort_unstable();
        self.replaced
    }

    /// Applies all changes of the tree; returns the series that were created.
    fn replay_tree(&mut self, report: &mut FsckReport) -> HashSet<NodeId> {
        self.tree.sort_by_key(|row| (row.commit, row.timestamp));
        let mut tree = Tree::default();
        let mut created = HashSet::new();
        for row in self.tree.drain(..) {
            if row.op == TreeOp::Create && row.entry == EntryType::FileSeries {
                created.insert(row.node);
            }
            // Without some of its rows the tree contradicts itself, which has its finding already.
            if let Err(reason) = tree.apply(&row)
                && self.is_tree_whole
            {
                let problem = format!(
                    "commit {} contradicts what came before it in the tree: {reason}",
                    row.commit
                );
                report.damage.push(Finding::new(problem, RESTORE_LOG).with_path(row.path.as_str()));
            }
        }
        created
    }
}

fn check_node(node: &Node, report: &mut FsckReport) {
    for (first, last) in node.versions.gaps() {
        let (first, last) = (Version::new(first), Version::new(last));
        let problem = "no part of the log that can be read has these versions";
        report.damage.push(finding(problem, &node.path, first, last));
    }
    let newest = node.versions.newest();
    if node.highest_in_files > newest {
        let problem = "data files hold rows of versions that no part of the log has";
        report.damage.push(finding(problem, &node.path, newest.next(), node.highest_in_files));
    }
}

fn finding(problem: &str, path: &TreePath, first: Version, last: Version) -> Finding {
    Finding::new(problem, RESTORE_LOG).with_path(path.as_str()).with_versions(first, last)
}

/// A set of numbers as spans, both ends included, in ascending order and apart.
#[derive(Debug, Default)]
struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// Adds a number; whether it was not there.
    fn insert(&mut self, number: i64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        if self.0.get(at).is_some_and(|(first, _)| *first <= number) {
            return false;
        }
        let touches_next = self.0.get(at).is_some_and(|(first, _)| *first == number + 1);
        let before = at.checked_sub(1).filter(|before| self.0[*before].1 == number - 1);
        match (before, touches_next) {
            (Some(before), true) => {
                self.0[before].1 = self.0[at].1;
                self.0.remove(at);
            }
            (Some(before), false) => self.0[before].1 = number,
            (None, true) => self.0[at].0 = number,
            (None, false) => self.0.insert(at, (number, number)),
        }
        true
    }

    /// The spans between 1 and the highest number that are not there.
    fn gaps(&self) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut next = 1;
        for (first, last) in &self.0 {
            if *first > next {
                gaps.push((next, first - 1));
            }
            next = last + 1;
        }
        gaps
    }

    fn newest(&self) -> Version {
        self.0.last().map_or(Version::NONE, |(_, last)| Version::new(*last))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::{TimeRange, TransactionId, WriteTime};
    use tidelog_oplog::{Codec, FileOrder, Hash128, VersionOp};
    use uuid::Uuid;

    use super::*;

    fn node() -> NodeId {
        NodeId::from_uuid(Uuid::from_u128(7))
    }

    fn path() -> TreePath {
        TreePath::parse("/a").unwrap()
    }

    fn created() -> Row {
        Row::Tree(TreeRow {
            op: TreeOp::Create,
            node: node(),
            entry: EntryType::FileSeries,
            path: path(),
            timestamp: WriteTime::from_micros(1),
            schema: None,
            options: None,
            commit: CommitVersion::new(1),
        })
    }

    fn version(commit: i64, version: i64, rows: u64) -> Row {
        Row::Version(VersionRow {
            op: VersionOp::Append,
            node: node(),
            path: path(),
            version: Version::new(version),
            timestamp: WriteTime::from_micros(version),
            rows,
            range: None,
            time_column: "time".into(),
            transaction: TransactionId::from_uuid(Uuid::nil()),
            detail: None,
            commit: CommitVersion::new(commit),
        })
    }

    fn file(op: FileOp, id: u128, commit: i64, versions: (i64, i64), rows: u64) -> Row {
        Row::File(FileRow {
            op,
            file: FileId::from_uuid(Uuid::from_u128(id)),
            node: node(),
            path: path(),
            timestamp: WriteTime::from_micros(commit),
            location: "series/x".into(),
            size: 1,
            rows,
            row_groups: 1,
            tail_length: 1,
            hash: Hash128::of(b"a"),
            tail_hash: Hash128::of(b"b"),
            page_hashes: Vec::new().into(),
            range: TimeRange::try_new(0, 1).unwrap(),
            min_version: Version::new(versions.0),
            max_version: Version::new(versions.1),
            version_base: versions.0,
            partition: None,
            order: FileOrder::Time,
            until: None,
            unique: true,
            column_stats: Vec::new().into(),
            codec: Codec::Auto,
            row_group_rows: 0,
            runs: [].into(),
            commit: CommitVersion::new(commit),
        })
    }

    /// What is said about parts, oldest first, and how many files are live; `None` is a lost part.
    fn said_of(parts: Vec<(Option<Vec<Row>>, bool)>) -> (Vec<String>, usize) {
        said_with_aside(parts, &[])
    }

    /// The same; `aside` are the places of the parts of files that have gone.
    fn said_with_aside(
        parts: Vec<(Option<Vec<Row>>, bool)>,
        aside: &[usize],
    ) -> (Vec<String>, usize) {
        let mut check = SeriesCheck::new(true);
        let mut report = FsckReport::default();
        let mut live = 0;
        for (place, (rows, continues)) in parts.into_iter().enumerate().rev() {
            let is_aside = aside.contains(&place);
            let Some(rows) = rows else {
                check.lose_part(false, is_aside);
                continue;
            };
            check.begin_part(&rows, continues, is_aside);
            for row in rows.into_iter().rev() {
                match row {
                    Row::Tree(row) => check.take_tree(row),
                    Row::Version(row) => check.take_version(&row, &mut report),
                    Row::File(row) => live += check.take_file(row, &mut report).iter().count(),
                    Row::Store(_) => {}
                }
            }
            check.end_part(&mut report);
        }
        check.finish(&mut report);
        (report.damage.iter().map(ToString::to_string).collect(), live)
    }

    fn is_said(parts: Vec<(Option<Vec<Row>>, bool)>, words: &str) {
        let (said, _) = said_of(parts);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(words), "{words} is not in {said:?}");
    }

    const ADD: FileOp = FileOp::Add;

    #[test]
    fn versions_and_files_that_fit_say_nothing() {
        let first = vec![created(), version(1, 1, 5), file(ADD, 1, 1, (1, 1), 2)];
        // The rest of commit 1 lies in the next part of the run; commit 2 shares a file.
        let second = vec![
            file(ADD, 2, 1, (1, 1), 3),
            version(2, 2, 1),
            version(2, 3, 1),
            file(ADD, 3, 2, (2, 3), 2),
        ];
        // Compaction: all files into one.
        let third = vec![
            file(FileOp::Remove, 1, 3, (1, 1), 2),
            file(FileOp::Remove, 2, 3, (1, 1), 3),
            file(ADD, 4, 3, (1, 1), 5),
        ];
        let parts = vec![(Some(first), false), (Some(second), true), (Some(third), false)];
        assert_eq!(said_of(parts), (vec![], 2));
    }

    #[test]
    fn files_that_lie_aside_count_for_the_versions_of_their_commits() {
        let versions =
            || vec![created(), version(1, 1, 5), version(2, 2, 3), file(ADD, 4, 3, (1, 2), 8)];
        let gone = |rows: u64| {
            vec![
                file(ADD, 1, 1, (1, 1), 5),
                file(ADD, 2, 2, (2, 2), rows),
                file(FileOp::Remove, 1, 3, (1, 1), 5),
                file(FileOp::Remove, 2, 3, (2, 2), rows),
            ]
        };
        let parts = |gone: Option<Vec<Row>>| vec![(Some(versions()), false), (gone, true)];
        assert_eq!(said_with_aside(parts(Some(gone(3))), &[1]), (vec![], 1));
        let (said, _) = said_with_aside(parts(Some(gone(2))), &[1]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("/a, v2, 3 rows: commit 2 says"), "{said:?}");
        assert_eq!(said_with_aside(parts(None), &[1]).0, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_fit_is_said_once() {
        let one = || vec![created(), version(1, 1, 1), file(ADD, 1, 1, (1, 1), 1)];
        let with = |more: Vec<Row>| vec![(Some([one(), more].concat()), false)];
        is_said(with(vec![version(2, 1, 0)]), "more than once");
        is_said(with(vec![version(2, 3, 0)]), "/a, v2: no part of the log");
        is_said(with(vec![version(2, 2, 4)]), "/a, v2, 4 rows: commit 2 says");
        is_said(with(vec![file(ADD, 2, 2, (2, 2), 1)]), "/a, v2: data files hold rows");
        let shared = vec![version(2, 2, 1), version(2, 3, 1), file(ADD, 2, 2, (2, 3), 3)];
        is_said(with(shared), "/a, v2…v3, 2 rows: commit 2 says");
        is_said(with(vec![file(FileOp::Remove, 9, 2, (1, 1), 1)]), "never added");
        is_said(vec![(Some(one().split_off(1)), false)], "never created");
        is_said(with(vec![created()]), "contradicts what came before");
    }

    #[test]
    fn a_lost_part_is_blamed_for_nothing_but_its_versions() {
        let one = vec![created(), version(1, 1, 1), file(ADD, 1, 1, (1, 1), 1)];
        let last = vec![
            file(ADD, 3, 2, (2, 2), 1),
            file(FileOp::Remove, 2, 3, (2, 2), 1),
            version(3, 3, 1),
            file(ADD, 4, 3, (3, 3), 1),
        ];
        let parts = vec![(Some(one), false), (None, false), (Some(last), true)];
        is_said(parts, "/a, v2: no part of the log");
    }

    #[test]
    fn spans_are_what_a_set_is() {
        let mut spans = Spans::default();
        for number in [5, 4, 1, 9, 8, 6, 2] {
            assert!(spans.insert(number), "{number}");
            assert!(!spans.insert(number), "{number}");
        }
        assert_eq!(spans.0, [(1, 2), (4, 6), (8, 9)]);
        assert_eq!(spans.gaps(), [(3, 3), (7, 7)]);
        assert!(spans.insert(3) && spans.insert(7));
        assert_eq!(spans.0, [(1, 9)]);
        assert_eq!((spans.gaps(), spans.newest()), (vec![], Version::new(9)));
    }
}
