//! What a read sees: one series at one point in history, immutable.

use std::sync::Arc;

use tidelog_core::{
    AsOf, CommitVersion, NodeId, PathPattern, SnapshotName, TimeRange, TreePath, Version, WriteTime,
};
use tidelog_oplog::{EntryType, FileRow, Node, SeriesState, Tree, VersionRow};

use crate::engine::{Engine, schema_of};
use crate::error::{Error, snapshot_words};
use crate::head::Head;
use crate::hot::HotFile;
use crate::series_schema::SeriesSchema;

/// One series as of one point in history. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct SeriesView {
    path: TreePath,
    schema: SeriesSchema,
    series: Arc<SeriesState>,
    version: Version,
    provisional: bool,
    hot: Arc<[Arc<HotFile>]>,
    /// The newest commit of the state that it is seen from.
    commit: CommitVersion,
}

impl SeriesView {
    /// The path by which the series was found.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> &SeriesSchema {
        &self.schema
    }

    /// The newest version that is visible.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The newest commit of the state that it is seen from, which must not lose a file while it is read.
    #[must_use]
    pub fn commit(&self) -> CommitVersion {
        self.commit
    }

    /// Whether a version that is still to be committed could change the answer, because the read is
    /// as of a time later than any commit.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// All that the log knows of the series.
    #[must_use]
    pub fn series(&self) -> &SeriesState {
        &self.series
    }

    /// The visible versions that touch `range`.
    pub fn versions(&self, range: TimeRange) -> impl Iterator<Item = &Arc<VersionRow>> {
        self.series.versions().overlapping(range).filter(|row| row.version <= self.version)
    }

    /// The files that touch `range` and hold visible rows.
    pub fn files(&self, range: TimeRange) -> impl Iterator<Item = &Arc<FileRow>> {
        self.series.files_overlapping(range).filter(|file| self.has_visible_rows(file))
    }

    fn has_visible_rows(&self, file: &FileRow) -> bool {
        file.min_version <= self.version
            && file.until.is_none_or(|until| self.version < until.last())
    }

    /// Rows in memory, in pieces that touch `range` and hold rows of visible versions. No row is both
    /// here and in a file.
    pub fn hot_files(&self, range: TimeRange) -> impl Iterator<Item = &Arc<HotFile>> {
        let seen = move |file: &&Arc<HotFile>| {
            let row = file.row();
            row.min_version <= self.version && row.range.overlaps(&range)
        };
        self.hot.iter().filter(seen)
    }

    /// How many pieces in memory hold rows of visible versions.
    #[must_use]
    pub fn hot_file_count(&self) -> u64 {
        self.hot_files(TimeRange::ALL).count() as u64
    }

    /// How many files hold visible rows.
    #[must_use]
    pub fn file_count(&self) -> u64 {
        if self.version == self.series.head() {
            return self.series.head_file_count() as u64;
        }
        self.files(TimeRange::ALL).count() as u64
    }

    /// How many visible versions touch `range`.
    #[must_use]
    pub fn version_count_in(&self, range: TimeRange) -> u64 {
        if range == TimeRange::ALL {
            return self.version_count();
        }
        self.versions(range).count() as u64
    }

    /// Whether `file` may also hold rows that are not visible: of later versions, or replaced by then.
    #[must_use]
    pub fn is_partly_visible(&self, file: &FileRow) -> bool {
        file.max_version > self.version
            || file.until.is_some_and(|until| until.first() <= self.version)
    }

    /// Whether rows are visible that a later version has replaced, and that lie in files of their own.
    #[must_use]
    pub fn shows_replaced_rows(&self) -> bool {
        let is_set_aside = self.series.head_file_count() < self.series.file_count();
        is_set_aside && self.files(TimeRange::ALL).any(|file| file.until.is_some())
    }

    /// How many versions are visible.
    #[must_use]
    pub fn version_count(&self) -> u64 {
        u64::try_from(self.version.number()).unwrap_or_default()
    }
}

impl Engine {
    /// The series at `path` as of a point in history.
    ///
    /// # Errors
    /// If there is no such series, it has no columns yet, or the point cannot be read.
    pub async fn series(&self, path: &TreePath, as_of: &AsOf) -> Result<SeriesView, Error> {
        let head = self.head().await?;
        self.series_in(&head, path, as_of).await
    }

    /// The series at `path` as of a point in history, seen from `head`.
    ///
    /// # Errors
    /// As [`Engine::series`].
    pub async fn series_in(
        &self,
        head: &Head,
        path: &TreePath,
        as_of: &AsOf,
    ) -> Result<SeriesView, Error> {
        match as_of {
            AsOf::Version(version) => {
                let node = series_node(head.tree(), path, None)?;
                let mut view = self.view(head, path.clone(), &node, Moment::Head).await?;
                check_version(head, path, *version, &view)?;
                view.version = *version;
                Ok(view)
            }
            other => {
                let (tree, moment) = tree_as_of(head, path.as_str(), other)?;
                let node = series_node(&tree, path, moment.time())?;
                self.view(head, path.clone(), &node, moment).await
            }
        }
    }

    /// The series that match `pattern` as of a point in history, in order of their paths. Series
    /// without a version then are left out.
    ///
    /// # Errors
    /// If nothing matches, or the point cannot be read: a version has no meaning over several
    /// series.
    pub async fn series_matching(
        &self,
        head: &Head,
        pattern: &PathPattern,
        as_of: &AsOf,
    ) -> Result<Vec<SeriesView>, Error> {
        if let Some(path) = pattern.as_path() {
            return Ok(vec![self.series_in(head, &path, as_of).await?]);
        }
        if let AsOf::Version(_) = as_of {
            let (pattern, asked) = (pattern.to_string(), as_of.to_string());
            return Err(Error::GlobVersion { pattern, asked });
        }
        let (tree, moment) = tree_as_of(head, pattern.as_str(), as_of)?;
        let has_columns =
            |node: &Node| node.entry == EntryType::FileSeries && node.schema.is_some();
        let found = tree.matching(pattern).into_iter().filter(|(_, node)| has_columns(node));
        let (paths, nodes): (Vec<TreePath>, Vec<Arc<Node>>) = found.unzip();
        if nodes.is_empty() {
            return Err(Error::NoMatch { pattern: pattern.to_string() });
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let committed = head.all_committed(self.log(), &ids).await?;
        let found = paths.into_iter().zip(&nodes).zip(committed);
        found.map(|((path, node), committed)| view(head, path, node, moment, committed)).collect()
    }

    async fn view(
        &self,
        head: &Head,
        path: TreePath,
        node: &Node,
        moment: Moment,
    ) -> Result<SeriesView, Error> {
        let committed = head.committed(self.log(), node.id).await?;
        view(head, path, node, moment, committed)
    }
}

/// What is seen of a series of which this is committed.
fn view(
    head: &Head,
    path: TreePath,
    node: &Node,
    moment: Moment,
    committed: Arc<SeriesState>,
) -> Result<SeriesView, Error> {
    let hot = head.hot_files(node.id, committed.head()).into();
    let series = head.with_hot_versions(committed)?;
    let Some(schema) = schema_of(&path, node)? else { return Err(Error::NoSchema { path }) };
    let version = moment.time().map_or_else(|| series.head(), |time| series.version_at(time));
    let provisional = match moment {
        Moment::Time(time) => time > head.complete_through(),
        // A snapshot was committed after all that is in it.
        Moment::Head | Moment::Snapshot(_) => false,
    };
    let commit = head.snapshot().head();
    let view = SeriesView { path, schema, series, version, provisional, hot, commit };
    match moment {
        Moment::Time(time) => view.check_horizon(head, &time.to_string()).map(|()| view),
        // Whatever was let go, a snapshot keeps what it needs, and the head is never let go.
        Moment::Head | Moment::Snapshot(_) => Ok(view),
    }
}

impl SeriesView {
    /// Refuses what lies before the horizon.
    fn check_horizon(&self, head: &Head, asked: &str) -> Result<(), Error> {
        let history = head.snapshot().history();
        let first = history.first_readable(self.series.node());
        if self.version >= first || first == Version::FIRST {
            return Ok(());
        }
        let newest = self.series.head();
        let left = match self.series.version(first) {
            Some(row) => format!(
                "its history before {first} has been let go; name one of {first} to {newest}, a time \
                 from {} on",
                row.timestamp
            ),
            None => {
                "its history has been let go after it was removed; name a later time".to_owned()
            }
        };
        let by_name = match snapshot_words(history) {
            Some(names) => format!(", or a snapshot that was made before ({names})"),
            None => String::new(),
        };
        let readable = format!("{left}{by_name}");
        Err(Error::AsOf { path: self.path.to_string(), asked: asked.to_owned(), readable })
    }
}

/// The moment as of which a view is made.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Head,
    Time(WriteTime),
    /// The moment of a named snapshot, which may lie before the horizon.
    Snapshot(WriteTime),
}

impl Moment {
    fn time(self) -> Option<WriteTime> {
        match self {
            Self::Head => None,
            Self::Time(time) | Self::Snapshot(time) => Some(time),
        }
    }
}

/// The tree as of a point in history that is no version, and which moment that is.
fn tree_as_of(head: &Head, path: &str, as_of: &AsOf) -> Result<(Tree, Moment), Error> {
    match as_of {
        AsOf::Time(time) => Ok((tree_at(head, path, *time)?, Moment::Time(*time))),
        AsOf::Snapshot(name) => {
            let history = head.snapshot().history();
            let known = SnapshotName::parse(name).ok();
            let found = known.and_then(|name| history.snapshot(&name));
            let time = found.ok_or_else(|| Error::no_snapshot(name, history))?.time;
            Ok((head.tree_at(time)?, Moment::Snapshot(time)))
        }
        _ => Ok((head.tree().clone(), Moment::Head)),
    }
}

fn series_node(tree: &Tree, path: &TreePath, at: Option<WriteTime>) -> Result<Arc<Node>, Error> {
    let node = tree
        .resolve(path)
        .cloned()
        .ok_or_else(|| Error::NotFound { path: path.clone(), at: at.map(|at| at.to_string()) })?;
    if node.entry == EntryType::FileSeries {
        return Ok(node);
    }
    Err(Error::WrongEntry { path: path.clone(), expected: "series" })
}

fn tree_at(head: &Head, path: &str, time: WriteTime) -> Result<Tree, Error> {
    match head.begins() {
        Some(first) if time < first => Err(Error::AsOf {
            path: path.to_owned(),
            asked: time.to_string(),
            readable: format!("the store's history begins at {first}; name a later time"),
        }),
        _ => head.tree_at(time),
    }
}

/// `view` is of the head.
fn check_version(
    head: &Head,
    path: &TreePath,
    asked: Version,
    view: &SeriesView,
) -> Result<(), Error> {
    let newest = view.version;
    if (Version::FIRST..=newest).contains(&asked) {
        let asked_for = SeriesView { version: asked, ..view.clone() };
        return asked_for.check_horizon(head, &asked.to_string());
    }
    let first = head.snapshot().history().first_readable(view.series.node());
    Err(Error::AsOf {
        path: path.to_string(),
        asked: asked.to_string(),
        readable: format!("it has the versions {first} to {newest}; name one of them"),
    })
}
