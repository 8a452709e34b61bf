//! The naive store: every version of every series as a list of rows, read by scanning all of them.
//!
//! It is the oracle of the property tests, written from the meaning of the words alone:
//!
//! - versions are dense within a node; a path created again after removal is a new node;
//! - a read yields (event time, key, version, position in the append);
//! - with dedup, one row per (key, event time): the highest version, and within one append the later
//!   row; null keys are equal to each other and come first;
//! - a delete takes rows from all versions before it, and of a deduplicated series those that are shown,
//!   with what they have replaced; a replace is a delete and an append in one; a restore brings the rows
//!   of an earlier version back, in the order that they had.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use thiserror::Error;
use tidelog_core::{TimeRange, TimeUnit};

use crate::cell::{Cell, Row};

/// The columns of a series and their roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Names, in order.
    pub columns: Vec<String>,
    /// Which of them is event time.
    pub time: usize,
    /// The unit in which it counts.
    pub unit: TimeUnit,
    /// Which of them are keys.
    pub keys: Vec<usize>,
    /// Whether a later row replaces an earlier one with the same key and event time.
    pub dedup: bool,
    /// Whatever the test wants to find again with the series.
    pub tag: usize,
}

impl Shape {
    /// The event time of `row`, in the unit of the time column.
    #[must_use]
    pub fn time_of(&self, row: &[Cell]) -> i64 {
        row.get(self.time).and_then(Cell::as_int).unwrap_or_default()
    }

    /// The event time of `row` in nanoseconds.
    #[must_use]
    pub fn nanos_of(&self, row: &[Cell]) -> i64 {
        self.time_of(row).saturating_mul(self.unit.nanos())
    }

    /// Event time and key of `row`.
    #[must_use]
    pub fn place_of(&self, row: &[Cell]) -> (i64, Vec<Cell>) {
        (self.time_of(row), self.keys.iter().map(|key| row[*key].clone()).collect())
    }
}

/// A row and the version that it came with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionedRow {
    /// The values.
    pub row: Row,
    /// The version.
    pub version: i64,
}

/// One version.
#[derive(Debug, Clone)]
pub struct ModelVersion {
    /// What it did, as the log says it.
    pub operation: &'static str,
    /// The rows it stored, in the order of the append, after dedup within the append. Of a restore nothing
    /// is said of that.
    pub rows: Vec<Row>,
    /// The event times of what it changed, in nanoseconds.
    pub range: Option<(i64, i64)>,
    /// All rows after it, before dedup, if it did more than to add some.
    state: Option<Vec<Placed>>,
    /// When it was recorded, in microseconds.
    pub write_time: i64,
    /// The path that the series had.
    pub path: String,
}

/// A row with its place, version and position.
type Placed = ((i64, Vec<Cell>), i64, usize, Row);

#[derive(Debug, Clone)]
struct Series {
    shape: Shape,
    versions: Vec<ModelVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    Series(usize),
}

type Tree = Arc<BTreeMap<String, Entry>>;

/// A point in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelAsOf {
    /// Now.
    #[default]
    Head,
    /// After this version of the node that the path names now.
    Version(i64),
    /// At the write time of some version, in microseconds.
    Time(i64),
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nothing is there, or not at that point in history.
    #[error("nothing at {0}")]
    NotFound(String),
    /// Something is there already.
    #[error("{0} is taken")]
    Taken(String),
    /// What is there is of another kind, or the call makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// The store.
#[derive(Debug, Clone, Default)]
pub struct Model {
    series: Vec<Series>,
    tree: Tree,
    /// The tree after each version, by its write time.
    history: Vec<(i64, Tree)>,
}

impl Model {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The paths of all series, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let series = self.tree.iter().filter(|(_, entry)| **entry != Entry::Directory);
        series.map(|(path, _)| path.clone()).collect()
    }

    /// The shape of the series at `path`, if there is one.
    #[must_use]
    pub fn shape(&self, path: &str) -> Option<&Shape> {
        self.head(path).map(|series| &series.shape)
    }

    /// The versions of the series at `path`, oldest first.
    #[must_use]
    pub fn versions(&self, path: &str) -> &[ModelVersion] {
        self.head(path).map_or(&[], |series| &series.versions)
    }

    /// The node that `path` names at a point in history, if that is a series with a version, and how many
    /// of its versions are visible. Nodes are numbered as they are made, and survive renames.
    #[must_use]
    pub fn node(&self, path: &str, as_of: ModelAsOf) -> Option<(usize, usize)> {
        let (_, visible) = self.view(path, as_of).ok()?;
        match self.tree_at(as_of)?.get(path) {
            Some(Entry::Series(index)) => Some((*index, visible)),
            _ => None,
        }
    }

    /// The write times of the versions of a node, in order.
    #[must_use]
    pub fn times_of(&self, node: usize) -> Vec<i64> {
        let versions = self.series.get(node).map(|series| series.versions.as_slice());
        versions.unwrap_or_default().iter().map(|version| version.write_time).collect()
    }

    /// The write times of all versions of all nodes, in order.
    #[must_use]
    pub fn write_times(&self) -> Vec<i64> {
        self.history.iter().map(|(time, _)| *time).collect()
    }

    fn head(&self, path: &str) -> Option<&Series> {
        match self.tree.get(path) {
            Some(Entry::Series(index)) => self.series.get(*index),
            _ => None,
        }
    }

    /// Makes an empty series.
    ///
    /// # Errors
    /// If the path is taken or leads through a series.
    pub fn create(&mut self, path: &str, shape: Shape) -> Result<(), ModelError> {
        let index = self.series.len();
        let tree = Arc::make_mut(&mut self.tree);
        make_parents(tree, path)?;
        match tree.entry(path.to_owned()) {
            MapEntry::Occupied(_) => return Err(ModelError::Taken(path.to_owned())),
            MapEntry::Vacant(entry) => entry.insert(Entry::Series(index)),
        };
        self.series.push(Series { shape, versions: Vec::new() });
        Ok(())
    }

    /// Appends rows as one version and returns its number; none if there are no rows. The series is
    /// made with `shape` if nothing is at `path`.
    ///
    /// # Errors
    /// If the path is taken by a directory or leads through a series.
    pub fn append(
        &mut self,
        path: &str,
        shape: &Shape,
        rows: &[Row],
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        self.append_rows(path, shape, rows, write_time, true)
    }

    fn append_rows(
        &mut self,
        path: &str,
        shape: &Shape,
        rows: &[Row],
        write_time: i64,
        settle: bool,
    ) -> Result<Option<i64>, ModelError> {
        let before = (self.series.len(), Arc::clone(&self.tree));
        if !self.tree.contains_key(path) {
            self.create(path, shape.clone())?;
        }
        let Some(Entry::Series(index)) = self.tree.get(path) else {
            return Err(ModelError::Invalid(format!("{path} is a directory")));
        };
        if rows.is_empty() {
            // It stores nothing, not even the series.
            self.series.truncate(before.0);
            self.tree = before.1;
            return Ok(None);
        }
        let series = &mut self.series[*index];
        let rows = if settle && series.shape.dedup {
            later_wins(&series.shape, rows)
        } else {
            rows.to_vec()
        };
        let range = span(rows.iter().map(|row| series.shape.nanos_of(row)));
        let (operation, path, state) = ("append", path.to_owned(), None);
        series.versions.push(ModelVersion { operation, rows, range, state, write_time, path });
        let version = i64::try_from(series.versions.len()).unwrap_or(i64::MAX);
        self.history.push((write_time, Arc::clone(&self.tree)));
        Ok(Some(version))
    }

    /// Appends rows of which no two share key and event time, which is quicker to settle.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_unique(
        &mut self,
        path: &str,
        shape: &Shape,
        rows: &[Row],
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        self.append_rows(path, shape, rows, write_time, false)
    }

    /// Deletes the rows in `range` for which `ends` holds, as one version; none if there are none.
    ///
    /// # Errors
    /// If there is no series with a version.
    pub fn delete(
        &mut self,
        path: &str,
        range: TimeRange,
        ends: impl Fn(&Row) -> bool,
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        let (series, visible) = self.view(path, ModelAsOf::Head)?;
        let shape = series.shape.clone();
        let is_in = |row: &Row| within(range, shape.nanos_of(row)) && ends(row);
        let shown = series.shown(visible);
        let places: Vec<_> = shown.iter().filter(|(.., row)| is_in(row)).collect();
        let (left, gone): (Vec<Placed>, Vec<Placed>) =
            series.live(visible).into_iter().partition(|placed| match shape.dedup {
                true => places.iter().all(|(place, ..)| *place != placed.0),
                false => !is_in(&placed.3),
            });
        if gone.is_empty() {
            return Ok(None);
        }
        let range = span(gone.iter().map(|(.., row)| shape.nanos_of(row)));
        self.change(path, "delete", Vec::new(), range, left, write_time)
    }

    /// Whether a condition tells rows apart that nothing but their position does, so that their order is
    /// lost.
    #[must_use]
    pub fn divides_equals(&self, path: &str, ends: impl Fn(&Row) -> bool) -> bool {
        let Ok((series, visible)) = self.view(path, ModelAsOf::Head) else { return false };
        let live = series.live(visible);
        !series.shape.dedup
            && live.windows(2).any(|two| two[0].0 == two[1].0 && ends(&two[0].3) != ends(&two[1].3))
    }

    /// Puts rows in the place of those in `range`, as one version; none if there are neither.
    ///
    /// # Errors
    /// If there is no series with a version, or a row lies outside.
    pub fn replace(
        &mut self,
        path: &str,
        range: TimeRange,
        rows: &[Row],
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        let (series, visible) = self.view(path, ModelAsOf::Head)?;
        let shape = series.shape.clone();
        if rows.iter().any(|row| !within(range, shape.nanos_of(row))) {
            return Err(ModelError::Invalid("a row lies outside".to_owned()));
        }
        let (gone, mut left): (Vec<Placed>, Vec<Placed>) = series
            .live(visible)
            .into_iter()
            .partition(|(.., row)| within(range, shape.nanos_of(row)));
        if gone.is_empty() && rows.is_empty() {
            return Ok(None);
        }
        let rows = if shape.dedup { later_wins(&shape, rows) } else { rows.to_vec() };
        let version = i64::try_from(visible + 1).unwrap_or(i64::MAX);
        left.extend(shape.placed(&rows, version));
        left.sort();
        let all = gone.iter().map(|(.., row)| row).chain(&rows);
        let range = span(all.map(|row| shape.nanos_of(row)));
        self.change(path, "replace", rows, range, left, write_time)
    }

    /// Brings back the rows of an earlier version, as one version.
    ///
    /// # Errors
    /// If there is no such series or version.
    pub fn restore(
        &mut self,
        path: &str,
        to: i64,
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        let (series, visible) = self.view(path, ModelAsOf::Version(to))?;
        let since = series.versions[visible..].iter().filter_map(|version| version.range);
        let range = since.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        let back = series.live(visible);
        self.change(path, "restore", Vec::new(), range, back, write_time)
    }

    fn change(
        &mut self,
        path: &str,
        operation: &'static str,
        rows: Vec<Row>,
        range: Option<(i64, i64)>,
        state: Vec<Placed>,
        write_time: i64,
    ) -> Result<Option<i64>, ModelError> {
        let Some(Entry::Series(index)) = self.tree.get(path) else {
            return Err(ModelError::NotFound(path.to_owned()));
        };
        let (series, state, path) = (&mut self.series[*index], Some(state), path.to_owned());
        series.versions.push(ModelVersion { operation, rows, range, state, write_time, path });
        self.history.push((write_time, Arc::clone(&self.tree)));
        Ok(i64::try_from(series.versions.len()).ok())
    }

    /// Moves a series or a directory with all below it.
    ///
    /// # Errors
    /// If nothing is at `from`, `to` is taken, lies inside `from`, or leads through a series.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), ModelError> {
        if !self.tree.contains_key(from) {
            return Err(ModelError::NotFound(from.to_owned()));
        }
        if is_below(to, from) {
            return Err(ModelError::Invalid(format!("{to} lies inside {from}")));
        }
        if self.tree.contains_key(to) {
            return Err(ModelError::Taken(to.to_owned()));
        }
        let mut tree = BTreeMap::clone(&self.tree);
        make_parents(&mut tree, to)?;
        let moved: Vec<String> = tree.keys().filter(|path| is_below(path, from)).cloned().collect();
        for path in moved {
            if let Some(entry) = tree.remove(&path) {
                tree.insert(format!("{to}{}", &path[from.len()..]), entry);
            }
        }
        self.tree = Arc::new(tree);
        Ok(())
    }

    /// Removes a series, or a directory, with all below it if `recursive`.
    ///
    /// # Errors
    /// If nothing is there, or it is a directory that is not empty and `recursive` is not set.
    pub fn remove(&mut self, path: &str, recursive: bool) -> Result<(), ModelError> {
        if !self.tree.contains_key(path) {
            return Err(ModelError::NotFound(path.to_owned()));
        }
        let below = |other: &String| is_below(other, path);
        if !recursive && self.tree.keys().filter(|other| below(other)).count() > 1 {
            return Err(ModelError::Invalid(format!("{path} is not empty")));
        }
        Arc::make_mut(&mut self.tree).retain(|other, _| !below(other));
        Ok(())
    }

    /// The rows that a read of `path` yields, in order.
    ///
    /// # Errors
    /// If there is no such series, or not at that point, or the version is out of reach.
    pub fn read(
        &self,
        path: &str,
        as_of: ModelAsOf,
        range: TimeRange,
    ) -> Result<Vec<VersionedRow>, ModelError> {
        let (series, visible) = self.view(path, as_of)?;
        let shape = &series.shape;
        let placed = series.shown(visible);
        let rows = placed.into_iter().map(|(_, version, _, row)| VersionedRow { row, version });
        let inside = |row: &VersionedRow| within(range, shape.nanos_of(&row.row));
        Ok(rows.filter(inside).collect())
    }

    /// The visible versions whose event times touch `range`, and what they cover of it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn covered(
        &self,
        path: &str,
        as_of: ModelAsOf,
        range: TimeRange,
    ) -> Result<(u64, Option<(i64, i64)>), ModelError> {
        let (series, visible) = self.view(path, as_of)?;
        let mut versions = 0;
        let mut union: Option<(i64, i64)> = None;
        for version in &series.versions[..visible] {
            let Some((min, max)) = version.range else { continue };
            if max < range.start().nanos() || min > range.end().nanos() {
                continue;
            }
            versions += 1;
            union = Some(union.map_or((min, max), |(a, b)| (a.min(min), b.max(max))));
        }
        let cut = |(a, b): (i64, i64)| (a.max(range.start().nanos()), b.min(range.end().nanos()));
        Ok((versions, union.map(cut)))
    }

    /// The series with visible versions whose paths `matches` accepts, in order of path.
    #[must_use]
    pub fn matching(&self, as_of: ModelAsOf, matches: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(tree) = self.tree_at(as_of) else { return Vec::new() };
        let series = tree.keys().filter(|path| self.view(path, as_of).is_ok() && matches(path));
        series.cloned().collect()
    }

    fn tree_at(&self, as_of: ModelAsOf) -> Option<&Tree> {
        match as_of {
            ModelAsOf::Head | ModelAsOf::Version(_) => Some(&self.tree),
            ModelAsOf::Time(time) => {
                self.history.iter().rev().find(|(at, _)| *at <= time).map(|(_, tree)| tree)
            }
        }
    }

    /// The series that `path` names and how many of its versions are visible.
    fn view(&self, path: &str, as_of: ModelAsOf) -> Result<(&Series, usize), ModelError> {
        let missing = || ModelError::NotFound(format!("{path} as of {as_of:?}"));
        let tree = self.tree_at(as_of).ok_or_else(missing)?;
        let series = match tree.get(path) {
            Some(Entry::Series(index)) => &self.series[*index],
            Some(Entry::Directory) => {
                return Err(ModelError::Invalid(format!("{path} is a directory")));
            }
            None => return Err(missing()),
        };
        let count = series.versions.len();
        let visible = match as_of {
            ModelAsOf::Head => count,
            ModelAsOf::Version(version) => match usize::try_from(version) {
                Ok(version) if (1..=count).contains(&version) => version,
                _ => return Err(missing()),
            },
            ModelAsOf::Time(time) => {
                series.versions.iter().take_while(|version| version.write_time <= time).count()
            }
        };
        if visible == 0 {
            return Err(ModelError::Invalid(format!("{path} has no version then")));
        }
        Ok((series, visible))
    }
}

impl Shape {
    fn placed<'a>(&'a self, rows: &'a [Row], version: i64) -> impl Iterator<Item = Placed> + 'a {
        let place = move |(position, row): (usize, &Row)| {
            (self.place_of(row), version, position, row.clone())
        };
        rows.iter().enumerate().map(place)
    }
}

impl Series {
    /// All rows after so many versions, in order, before dedup.
    fn live(&self, visible: usize) -> Vec<Placed> {
        let visible = &self.versions[..visible];
        let last = visible.iter().rposition(|version| version.state.is_some());
        let mut live = last.and_then(|last| visible[last].state.clone()).unwrap_or_default();
        let after = last.map_or(0, |last| last + 1);
        for (index, version) in visible.iter().enumerate().skip(after) {
            let number = i64::try_from(index + 1).unwrap_or(i64::MAX);
            live.extend(self.shape.placed(&version.rows, number));
        }
        live.sort();
        live
    }

    /// The rows after so many versions.
    fn shown(&self, visible: usize) -> Vec<Placed> {
        let mut placed = self.live(visible);
        if self.shape.dedup {
            // The last of equal places is the one of the highest version.
            placed.reverse();
            placed.dedup_by(|later, kept| later.0 == kept.0);
            placed.reverse();
        }
        placed
    }
}

fn within(range: TimeRange, nanos: i64) -> bool {
    range.start().nanos() <= nanos && nanos <= range.end().nanos()
}

fn span(times: impl Iterator<Item = i64> + Clone) -> Option<(i64, i64)> {
    times.clone().min().zip(times.max())
}

fn is_below(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn make_parents(tree: &mut BTreeMap<String, Entry>, path: &str) -> Result<(), ModelError> {
    let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).collect();
    if let Some(through) = ends
        .iter()
        .map(|end| &path[..*end])
        .find(|at| matches!(tree.get(*at), Some(Entry::Series(_))))
    {
        return Err(ModelError::Invalid(format!("{through} is a series")));
    }
    for end in ends {
        tree.entry(path[..end].to_owned()).or_insert(Entry::Directory);
    }
    Ok(())
}

/// Of rows with equal key and event time, the last.
fn later_wins(shape: &Shape, rows: &[Row]) -> Vec<Row> {
    let place = |row: &Row| shape.place_of(row);
    let replaced = |i: usize| rows[i + 1..].iter().any(|later| place(later) == place(&rows[i]));
    (0..rows.len()).filter(|i| !replaced(*i)).map(|i| rows[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dedup: bool) -> Shape {
        Shape {
            columns: ["time", "key", "value"].map(str::to_owned).to_vec(),
            time: 0,
            unit: TimeUnit::Second,
            keys: vec![1],
            dedup,
            tag: 0,
        }
    }

    fn row(time: i64, key: Option<&str>, value: i64) -> Row {
        let key = key.map_or(Cell::Null, |key| Cell::Text(key.to_owned()));
        vec![Cell::Int(time), key, Cell::Int(value)]
    }

    fn values(model: &Model, path: &str, as_of: ModelAsOf) -> Vec<(i64, i64)> {
        let rows = model.read(path, as_of, TimeRange::ALL).unwrap();
        rows.iter().map(|r| (r.row[2].as_int().unwrap(), r.version)).collect()
    }

    #[test]
    fn rows_come_by_time_key_version_and_position() {
        let mut model = Model::new();
        let first = [row(2, Some("a"), 0), row(1, Some("b"), 1), row(1, None, 2), row(1, None, 3)];
        model.append("/s", &shape(false), &first, 10).unwrap();
        model.append("/s", &shape(false), &[row(1, Some("b"), 4), row(0, None, 5)], 11).unwrap();
        let all = [(5, 2), (2, 1), (3, 1), (1, 1), (4, 2), (0, 1)];
        assert_eq!(values(&model, "/s", ModelAsOf::Head), all);
        assert_eq!(values(&model, "/s", ModelAsOf::Version(1)), [(2, 1), (3, 1), (1, 1), (0, 1)]);
        assert!(model.read("/s", ModelAsOf::Version(3), TimeRange::ALL).is_err());
    }

    #[test]
    fn with_dedup_the_later_row_and_the_higher_version_win() {
        let mut model = Model::new();
        let shape = shape(true);
        let first = [row(1, None, 0), row(1, Some("a"), 1), row(1, None, 2)];
        model.append("/s", &shape, &first, 10).unwrap();
        model.append("/s", &shape, &[row(1, Some("a"), 3)], 11).unwrap();
        assert_eq!(model.versions("/s")[0].rows.len(), 2);
        assert_eq!(values(&model, "/s", ModelAsOf::Head), [(2, 1), (3, 2)]);
        assert_eq!(values(&model, "/s", ModelAsOf::Time(10)), [(2, 1), (1, 1)]);
    }

    #[test]
    fn a_path_created_again_is_a_new_node_and_history_keeps_the_old_one() {
        let mut model = Model::new();
        model.append("/a/s", &shape(false), &[row(1, None, 1)], 10).unwrap();
        model.rename("/a", "/b").unwrap();
        model.append("/b/s", &shape(false), &[row(2, None, 2)], 20).unwrap();
        model.remove("/b/s", false).unwrap();
        assert_eq!(model.append("/b/s", &shape(false), &[row(3, None, 3)], 30), Ok(Some(1)));
        assert_eq!(values(&model, "/a/s", ModelAsOf::Time(10)), [(1, 1)]);
        assert_eq!(values(&model, "/b/s", ModelAsOf::Time(20)), [(1, 1), (2, 2)]);
        assert_eq!(values(&model, "/b/s", ModelAsOf::Head), [(3, 1)]);
        assert!(model.read("/a/s", ModelAsOf::Head, TimeRange::ALL).is_err());
        assert!(model.rename("/b", "/b/c").is_err());
        assert!(model.remove("/b", false).is_err());
        assert!(model.append("/b/s/x", &shape(false), &[row(1, None, 1)], 40).is_err());
    }
}
