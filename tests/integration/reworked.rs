//! One series whose data many writers change, and what must be there by what its log says.
//!
//! What a change does follows from its number alone, and the number stands in the log: in the transaction
//! id of an append, and as a fraction of a step in the range of a delete or a replace. So nothing but the
//! store is needed to say what each version must show: the versions are played again, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::{
    AsOf, ErrorKind, EventTime, ReadOptions, SeriesAppend, SeriesExt, Store, TransactionId,
    Version, VersionInfo, WriteTime,
};
use tidelog_testkit::{Row, rows_of as rows_of_batch};

use crate::support::{Context, Fallible, same};

/// The series.
pub(crate) const REWORKED: &str = "/k/reworked.series";

/// All rows lie at steps of event time, nanoseconds, from here on.
const BEGIN: i64 = 1_700_000_000_000_000_000;
const STEP: i64 = 1_000_000;
const STEPS: i64 = 400;
/// Steps that a delete or a replace spans.
const WIDTH: i64 = 60;
/// Numbers are below.
pub(crate) const NUMBERS_MAX: i64 = STEP - 1;

/// Event time in nanoseconds, number of the change, index within it.
pub(crate) type Values = (i64, i64, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Append,
    Delete,
    Replace,
    Restore,
}

fn kind_of(number: i64) -> Kind {
    match number % 7 {
        0..4 => Kind::Append,
        4 => Kind::Delete,
        5 => Kind::Replace,
        _ => Kind::Restore,
    }
}

/// The first and the last event time of a delete or a replace.
fn range_of(number: i64) -> (i64, i64) {
    let first = number * 37 % STEPS;
    (BEGIN + (first - 1) * STEP + 1 + number, BEGIN + (first + WIDTH) * STEP)
}

fn number_from(start: i64) -> i64 {
    (start - BEGIN - 1).rem_euclid(STEP)
}

/// The rows that a change adds.
fn rows_of(number: i64) -> Vec<Values> {
    let step = |i: i64| match kind_of(number) {
        Kind::Append => (number * 7_919 + i * 131) % STEPS,
        _ => number * 37 % STEPS + i * 17 % WIDTH,
    };
    let count = match kind_of(number) {
        Kind::Append | Kind::Replace => number % 4 + 1,
        Kind::Delete | Kind::Restore => 0,
    };
    (0..count).map(|i| (BEGIN + step(i) * STEP, number, i)).collect()
}

fn batch_of(number: i64) -> RecordBatch {
    let rows = rows_of(number);
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0 / 1_000));
    let columns: [(&str, ArrayRef); 3] = [
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("number", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("index", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Makes change `number`; the version that it became, if there was anything to change.
pub(crate) async fn rework(store: &Store, number: i64) -> tidelog::Result<Option<Version>> {
    let root = store.root();
    let (start, end) = range_of(number);
    let done = match kind_of(number) {
        Kind::Append => {
            let id = u128::try_from(number).unwrap() + 1;
            let id = TransactionId::from_uuid(uuid::Uuid::from_u128(id));
            let append = SeriesAppend::new(REWORKED, batch_of(number)).with_transaction(id);
            return Ok(root.append_series_data_with_options(append).await?.version);
        }
        Kind::Delete => root.delete_series_data(REWORKED, start, end).await,
        Kind::Replace => root.replace_series_data(REWORKED, start, end, &batch_of(number)).await,
        Kind::Restore => match store.describe(REWORKED).await {
            Ok(found) => {
                let to = found.version.number() - 1 - number % 2;
                root.restore_series(REWORKED, &AsOf::Version(Version::new(to.max(1)))).await
            }
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(receipt) => Ok(receipt.version),
        // There is no series yet, or others have let go of the version.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What each version must show, from version 0 on, and the changes that made them.
#[derive(Debug)]
pub(crate) struct Played {
    states: Vec<Vec<Values>>,
    /// The numbers of all but restores, by version.
    numbers: BTreeMap<i64, i64>,
    /// The versions that are restores.
    restores: BTreeSet<i64>,
}

impl Played {
    /// Plays the versions of the log again.
    pub(crate) fn new(versions: &[VersionInfo]) -> Fallible<Self> {
        let mut played =
            Self { states: vec![Vec::new()], numbers: BTreeMap::new(), restores: BTreeSet::new() };
        for (version, place) in versions.iter().zip(1..) {
            same("the number of a version", &place, &version.version.number())?;
            played.play(version).map_err(|error| format!("v{place}: {error}"))?;
        }
        let once: BTreeSet<&i64> = played.numbers.values().collect();
        same("changes that came once", &played.numbers.len(), &once.len())?;
        Ok(played)
    }

    fn play(&mut self, version: &VersionInfo) -> Fallible {
        let place = version.version.number();
        let before = self.states.last().cloned().unwrap_or_default();
        let detail: serde_json::Value = match &version.detail {
            Some(text) => serde_json::from_str(text).at("a detail")?,
            None => serde_json::Value::Null,
        };
        let told = |name: &str| {
            let text = detail[name].as_str().ok_or_else(|| format!("no {name} in {detail}"))?;
            let time = EventTime::parse_start(text, WriteTime::from_micros(0)).at(text)?;
            Ok::<i64, String>(time.nanos())
        };
        let mut now = before.clone();
        let kind = match version.operation {
            "append" => {
                let number =
                    i64::try_from(version.transaction.as_uuid().as_u128()).at("an id")? - 1;
                self.numbers.insert(place, number);
                now.extend(rows_of(number));
                Kind::Append
            }
            "restore" => {
                let to =
                    detail["to"].as_str().and_then(|text| text.strip_prefix('v')?.parse().ok());
                let to: usize = to.ok_or_else(|| format!("no version in {detail}"))?;
                now = self.states.get(to).cloned().ok_or_else(|| format!("no v{to}"))?;
                self.restores.insert(place);
                Kind::Restore
            }
            _ => {
                let (start, end) = (told("from")?, told("to")?);
                let number = number_from(start);
                same("the range of a change", &range_of(number), &(start, end))?;
                now.retain(|row| !(start..=end).contains(&row.0));
                same("rows that ended", &detail["rows_ended"], &(before.len() - now.len()).into())?;
                self.numbers.insert(place, number);
                now.extend(rows_of(number));
                kind_of(number)
            }
        };
        let name = format!("{kind:?}").to_lowercase();
        same("what a version did", &name.as_str(), &version.operation)?;
        if let Some(number) = self.numbers.get(&place) {
            same("what a change was to do", &kind_of(*number), &kind)?;
            same("rows that were added", &(rows_of(*number).len() as u64), &version.rows)?;
        }
        now.sort_unstable();
        self.states.push(now);
        Ok(())
    }

    /// What a version must show.
    pub(crate) fn state(&self, version: i64) -> Fallible<&Vec<Values>> {
        let state = usize::try_from(version).ok().and_then(|version| self.states.get(version));
        state.ok_or_else(|| format!("there is no v{version}"))
    }

    /// All that was acknowledged is there, under its version, and nothing that was not asked for.
    pub(crate) fn check(
        &self,
        acked: &BTreeMap<i64, i64>,
        is_asked: impl Fn(i64) -> bool,
    ) -> Fallible {
        for (version, number) in acked {
            let found = match kind_of(*number) {
                Kind::Restore => self.restores.contains(version),
                _ => self.numbers.get(version) == Some(number),
            };
            if !found {
                return Err(format!("v{version}, change {number}, was acked and is not there"));
            }
        }
        match self.numbers.values().find(|number| !is_asked(**number)) {
            Some(ghost) => Err(format!("change {ghost} is there and was never asked for")),
            None => Ok(()),
        }
    }
}

/// What versions did, for who has to find out what went wrong.
pub(crate) fn told(versions: &[VersionInfo]) -> String {
    let words = versions.iter().map(|version| {
        let detail = version.detail.as_deref().unwrap_or_default();
        format!("{} {} of {} rows {detail}", version.version, version.operation, version.rows)
    });
    words.collect::<Vec<_>>().join("; ")
}

/// The rows as of a point, in order.
pub(crate) async fn seen(store: &Store, as_of: AsOf) -> Fallible<Vec<Values>> {
    let options = ReadOptions::default().with_as_of(as_of);
    let read = store.root().read_series_with_options(REWORKED, &options).await;
    let batches: Vec<RecordBatch> = read.at("planning")?.try_collect().await.at("reading")?;
    values_in(&batches)
}

/// The rows of batches, in order.
pub(crate) fn values_in(batches: &[RecordBatch]) -> Fallible<Vec<Values>> {
    let values = |row: &Row| Some((row[0].as_int()? * 1_000, row[1].as_int()?, row[2].as_int()?));
    let mut found = Vec::new();
    for batch in batches {
        let rows = rows_of_batch(batch).at("turning a batch into rows")?;
        let rows = rows.iter().map(|row| values(row).ok_or_else(|| format!("{row:?}")));
        found.extend(rows.collect::<Fallible<Vec<Values>>>()?);
    }
    found.sort_unstable();
    Ok(found)
}

/// Judges the series by its log: head and every version that can be read show what they must.
pub(crate) async fn judge(
    store: &Store,
    acked: &BTreeMap<i64, i64>,
    is_asked: impl Fn(i64) -> bool,
) -> Fallible {
    if store.list(REWORKED).await.at("listing")?.is_empty() {
        return same("changes of a series that is not there", &0, &acked.len());
    }
    let versions = store.versions(REWORKED).await.at("versions")?;
    let played = Played::new(&versions)?;
    played.check(acked, is_asked)?;
    for version in versions.iter().filter(|version| version.readable) {
        let expected = played.state(version.version.number())?;
        let found = seen(store, AsOf::Version(version.version)).await?;
        same(format!("as of {}", version.version), expected, &found)?;
    }
    let newest = i64::try_from(versions.len()).at("versions")?;
    let head = same("at head", played.state(newest)?, &seen(store, AsOf::Head).await?);
    head.map_err(|error| format!("{error}\n{}", told(&versions)))
}

#[test]
fn a_number_is_read_from_its_range() {
    for number in [0, 1, 41, 1_000, NUMBERS_MAX - 1] {
        let (start, end) = range_of(number);
        assert_eq!(number_from(start), number);
        assert!(start < end);
        let rows = rows_of(number);
        assert!(rows.iter().all(|row| row.0 % STEP == BEGIN % STEP), "{rows:?}");
        if kind_of(number) == Kind::Replace {
            assert!(rows.iter().all(|row| (start..=end).contains(&row.0)), "{rows:?}");
        }
    }
}
