//! However the files of a series are laid out, and whenever that changes, all answers stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::arrow::array::RecordBatch;
use tidelog::object_store::ObjectStore;
use tidelog::{
    AsOf, Codec, ErrorKind, FileOrder, LayoutChange, LayoutFile, Mode, Partition, ReadOptions,
    Reason, SeriesExt, SeriesOptions, Store, Version,
};
use tidelog_testkit::{Cell, Row};

use crate::by_hand::{builder, memory, version_of, version_of_few_keys};
use crate::support::{Context, Fallible, rows, runtime, same, sql};

const PATH: &str = "/s.series";
const HOUR_MICROS: i64 = 3_600_000_000;
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows of a version: each hour one, of a few keys in turn, one of which is null.
fn batch(version: i64, start: i64, step: i64, count: i64) -> RecordBatch {
    let times = (0..count).map(|i| (start + i * step) * HOUR_MICROS);
    version_of_few_keys(version, times)
}

/// Versions that mostly follow one another; some come late, and in part once more.
async fn append(store: &Store, versions: std::ops::RangeInclusive<i64>) -> Fallible {
    for version in versions {
        let start = if version % 5 == 0 { 0 } else { version * 36 };
        let rows = batch(version, start, 3, 60);
        store.root().append_series_data(PATH, &rows, None).await.at("append")?;
    }
    Ok(())
}

async fn answers(store: &Store, versions: i64) -> Fallible<Vec<Vec<String>>> {
    let mut all = Vec::new();
    let text = |rows: Vec<Row>| rows.iter().map(|row| format!("{row:?}")).collect();
    for version in (1..=versions).step_by(3) {
        let options = ReadOptions::default().with_as_of(AsOf::Version(Version::new(version)));
        all.push(text(rows(store.root().read_series_with_options(PATH, &options).await).await?));
    }
    for statement in [
        "SELECT * FROM \"/s.series\" ORDER BY time DESC, key, version LIMIT 7",
        "SELECT * FROM \"/s.series\" WHERE key = 'k1' ORDER BY time, version LIMIT 5",
        "SELECT count(*), sum(version) FROM \"/s.series\" WHERE key IS NULL",
        "SELECT key, count(*), max(time) FROM \"/s.series\" GROUP BY key ORDER BY key",
        "SELECT DISTINCT ON (key) key, time FROM \"/s.series\" ORDER BY key, time DESC",
        "SELECT min(time), max(time), count(*) FROM \"/s.series\" \
         WHERE time >= '1970-01-20' AND time < '1970-02-20'",
        "SELECT time, key, version FROM \"/s.series\" \
         WHERE time >= '1970-01-10' AND time < '1970-01-20' ORDER BY time, key, version",
    ] {
        all.push(text(sql(store, statement).await?));
    }
    for options in [
        ReadOptions::default().with_limit(50),
        ReadOptions::default().with_filter("key = 'k2'"),
        ReadOptions::default().with_batch_size(17),
    ] {
        all.push(text(rows(store.root().read_series_with_options(PATH, &options).await).await?));
    }
    Ok(all)
}

async fn intact(store: &Arc<dyn ObjectStore>) -> Fallible {
    let report = builder(store).fsck(true).await.at("fsck")?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    same("damage", &Vec::<String>::new(), &damage)
}

/// Whoever appends with the background on finds the files as the series is laid out, and few.
#[test]
fn a_series_is_laid_out_in_the_background() {
    runtime().block_on(async {
        for change in [
            LayoutChange::default().with_order(FileOrder::KeyTime),
            LayoutChange::default().with_partition(Partition::Month),
            LayoutChange::default().with_order(FileOrder::KeyTime).with_partition(Partition::Week),
        ] {
            let place = memory();
            let store = Store::builder("memory://").with_object_store(Arc::clone(&place));
            let store = store.with_mode(Mode::Shared).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]);
            store.root().create_series(PATH, options).await.unwrap();
            store.root().set_series_layout(PATH, change).await.unwrap();
            let began = Instant::now();
            let mut versions = 0;
            // Merged files are those of several versions; each merge of eight leaves the rest.
            loop {
                append(&store, versions + 1..=versions + 8).await.unwrap();
                versions += 8;
                let drawn = store.layout(PATH).await.unwrap();
                let merged = |file: &&LayoutFile| file.first_version != file.last_version;
                let merged: Vec<_> = drawn.files.iter().filter(merged).collect();
                for file in &merged {
                    same("order", &drawn.layout.order, &file.order).unwrap();
                    let (start, end) = (file.range.start(), file.range.end());
                    same("partition", &true, &drawn.layout.partition.holds(start, end)).unwrap();
                }
                let appended = usize::try_from(versions).unwrap();
                if versions >= 64 && !merged.is_empty() && drawn.files.len() < appended {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{change:?}: nothing is merged");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let rows = sql(&store, "SELECT count(*) FROM \"/s.series\"").await.unwrap();
            assert_eq!(rows, [[Cell::Int(versions * 60)]]);
            let before = answers(&store, versions).await.unwrap();
            drop(store);
            let store = builder(&place).open().await.unwrap();
            store.compact(PATH).await.unwrap();
            assert_eq!(answers(&store, versions).await.unwrap(), before, "{change:?}");
            laid_out(&store, &change).await.unwrap();
            intact(&place).await.unwrap();
        }
    });
}

fn layouts() -> Vec<LayoutChange> {
    let change = LayoutChange::default;
    vec![
        change().with_partition(Partition::Day).with_codec(Codec::Lz4).with_row_group_rows(128),
        change().with_order(FileOrder::KeyTime).with_partition(Partition::None),
        change().with_partition(Partition::Week).with_codec(Codec::Zstd(5)),
        change().with_partition(Partition::Month).with_codec(Codec::None),
        change().with_order(FileOrder::Time).with_row_group_rows(1000),
        change().with_order(FileOrder::KeyTime).with_partition(Partition::Year),
    ]
}

/// Every file is laid out as the series is to be, and no two overlap.
async fn laid_out(store: &Store, change: &LayoutChange) -> Fallible {
    let drawn = store.layout(PATH).await.at("layout")?;
    let layout = drawn.layout;
    same("layout", &change.of(layout), &layout)?;
    let mut standing: Vec<_> = drawn.files.iter().filter(|file| !file.superseded).collect();
    standing.sort_by_key(|file| file.range.start());
    for file in &drawn.files {
        same("order", &layout.order, &file.order)?;
        same("codec", &Some(layout.codec), &file.codec)?;
        let (start, end) = (file.range.start(), file.range.end());
        same("partition", &true, &layout.partition.holds(start, end))?;
        same("partition's name", &layout.partition.name_of(start), &file.partition)?;
        let groups = file.rows.div_ceil(u64::from(layout.row_group_rows));
        same("row groups", &groups, &u64::from(file.row_groups))?;
    }
    let overlap = standing.windows(2).any(|pair| pair[0].range.overlaps(&pair[1].range));
    same("overlap", &false, &overlap)
}

#[test]
fn a_layout_is_taken_on_and_no_answer_changes() {
    runtime().block_on(async {
        for dedup in [false, true] {
            let place = memory();
            let store = builder(&place).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
            store.root().create_series(PATH, options).await.unwrap();
            let mut versions = 12;
            append(&store, 1..=versions).await.unwrap();
            for change in layouts() {
                let before = answers(&store, versions).await.unwrap();
                store.root().set_series_layout(PATH, change).await.unwrap();
                assert_eq!(answers(&store, versions).await.unwrap(), before);
                let done = store.compact(PATH).await.unwrap();
                assert!(!done.series[0].merges.is_empty(), "{change:?}");
                laid_out(&store, &change).await.unwrap();
                assert_eq!(answers(&store, versions).await.unwrap(), before, "{change:?}");
                let fresh = builder(&place).open().await.unwrap();
                assert_eq!(answers(&fresh, versions).await.unwrap(), before, "{change:?}");
                let again = fresh.compact(PATH).await.unwrap();
                assert!(again.series[0].merges.is_empty(), "{change:?}: {:?}", again.series[0]);
                intact(&place).await.unwrap();
                // What comes late lies over files in any order.
                append(&store, versions + 1..=versions + 4).await.unwrap();
                versions += 4;
                let late = answers(&store, versions).await.unwrap();
                store.compact(PATH).await.unwrap();
                laid_out(&store, &change).await.unwrap();
                assert_eq!(answers(&store, versions).await.unwrap(), late, "{change:?}");
            }
        }
    });
}

#[test]
fn a_file_in_the_old_layout_is_written_anew_by_compact_alone() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1..=1).await.unwrap();
        assert!(store.compact(PATH).await.unwrap().series[0].merges.is_empty());
        let head = store.log_head();
        let change = LayoutChange::default().with_codec(Codec::Zstd(9));
        store.root().set_series_layout(PATH, change).await.unwrap();
        assert_eq!(store.log_head(), head + 1, "one commit");
        assert_eq!(store.layout(PATH).await.unwrap().files[0].codec, Some(Codec::Auto));
        let planned = store.compact_dry_run(PATH).await.unwrap();
        assert_eq!(planned.series[0].merges[0].reason, Reason::Layout);
        store.compact(PATH).await.unwrap();
        laid_out(&store, &change).await.unwrap();
    });
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1..=1).await.unwrap();
        let head = store.log_head();
        let by_key = LayoutChange::default().with_order(FileOrder::KeyTime);
        for (path, change, kind) in [
            (PATH, by_key, ErrorKind::InvalidInput),
            (PATH, LayoutChange::default().with_row_group_rows(0), ErrorKind::InvalidInput),
            (PATH, LayoutChange::default().with_codec(Codec::Zstd(40)), ErrorKind::InvalidInput),
            ("/none.series", LayoutChange::default(), ErrorKind::NotFound),
            ("/", LayoutChange::default(), ErrorKind::InvalidInput),
        ] {
            let refused = store.root().set_series_layout(path, change).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
        }
        let options = SeriesOptions::default().with_order(FileOrder::KeyTime);
        let refused = store.root().create_series("/t.series", options).await.unwrap_err();
        assert!(refused.to_string().contains("needs key columns"), "{refused}");
        assert_eq!(store.log_head(), head);
    });
}

#[test]
fn a_flush_ends_files_at_the_borders_of_partitions() {
    runtime().block_on(async {
        let place = memory();
        let directory = tempfile::tempdir().unwrap();
        let builder =
            builder(&place).with_mode(Mode::Exclusive).with_wal_directory(directory.path());
        let store = builder.create().await.unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]);
        let options = options.with_partition(Partition::Week);
        store.root().create_series(PATH, options).await.unwrap();
        append(&store, 1..=9).await.unwrap();
        let before = answers(&store, 9).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(answers(&store, 9).await.unwrap(), before);
        let drawn = store.layout(PATH).await.unwrap();
        assert!(drawn.files.len() > 2, "{drawn:?}");
        for file in &drawn.files {
            let (start, end) = (file.range.start(), file.range.end());
            assert!(Partition::Week.holds(start, end), "{file:?}");
            assert_eq!(file.partition, Partition::Week.name_of(start));
        }
        store.close().await.unwrap();
    });
}

#[test]
fn late_rows_of_a_flush_lie_over_the_past_and_new_ones_do_not() {
    runtime().block_on(async {
        let place = memory();
        let directory = tempfile::tempdir().unwrap();
        let builder =
            builder(&place).with_mode(Mode::Exclusive).with_wal_directory(directory.path());
        let store = builder.with_compaction(false).create().await.unwrap();
        const ROWS: i64 = 6_000;
        // The first version is all in time; of each later one a third belongs anywhere before it.
        for version in 1..=4 {
            let start = version * ROWS;
            store
                .root()
                .append_series_data(PATH, &batch(version, start, 1, ROWS), None)
                .await
                .unwrap();
            if version > 1 {
                let late = batch(version, 0, version, ROWS / 2);
                store.root().append_series_data(PATH, &late, None).await.unwrap();
            }
            let before = answers(&store, 2 * version - 1).await.unwrap();
            store.flush().await.unwrap();
            assert_eq!(answers(&store, 2 * version - 1).await.unwrap(), before);
        }
        let drawn = store.layout(PATH).await.unwrap();
        // The first flush lay over nothing.
        assert_eq!(drawn.files.len(), 1 + 2 * 3, "{drawn:?}");
        assert_eq!(drawn.depth, 4, "{drawn:?}");
        store.close().await.unwrap();
    });
}

/// Rows of many keys: `count` rows from `start` on, each second one, keys in turn.
fn of_many_keys(version: i64, keys: i64, start: i64, count: i64) -> RecordBatch {
    let row = |i: i64| {
        let key = format!("k{:05}", i * 7919 % keys);
        ((start + i / keys) * 1_000_000, Some(key), (version * 1000 + i % 100) as f64 / 7.0)
    };
    version_of(version, (0..count).map(row))
}

#[test]
fn files_of_more_keys_than_are_merged_are_sorted() {
    runtime().block_on(async {
        for dedup in [false, true] {
            let place = memory();
            let store = builder(&place).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
            store.root().create_series(PATH, options).await.unwrap();
            let (root, keys) = (store.root(), 300);
            root.append_series_data(PATH, &of_many_keys(1, keys, 0, 3000), None).await.unwrap();
            let by_key = LayoutChange::default().with_order(FileOrder::KeyTime);
            root.set_series_layout(PATH, by_key).await.unwrap();
            let expected = answers(&store, 1).await.unwrap();
            store.compact(PATH).await.unwrap();
            laid_out(&store, &by_key).await.unwrap();
            assert_eq!(answers(&store, 1).await.unwrap(), expected);
            // Over a file that can only be sorted lies one that is in order.
            root.append_series_data(PATH, &of_many_keys(2, keys, 5, 900), None).await.unwrap();
            let expected = answers(&store, 2).await.unwrap();
            let time = LayoutChange::default().with_order(FileOrder::Time);
            for change in [by_key, time] {
                root.set_series_layout(PATH, change).await.unwrap();
                store.compact(PATH).await.unwrap();
                laid_out(&store, &change).await.unwrap();
                assert_eq!(answers(&store, 2).await.unwrap(), expected);
            }
            intact(&place).await.unwrap();
        }
    });
}

#[test]
fn with_little_memory_files_are_small_at_first_and_merged_then() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).with_memory_bytes_max(32 << 20).create().await.unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]);
        let options = options.with_order(FileOrder::KeyTime);
        store.root().create_series(PATH, options).await.unwrap();
        // A page of each key does not fit, so that the file is sorted and not merged by key.
        let rows = of_many_keys(1, 100, 0, 60_000);
        store.root().append_series_data(PATH, &rows, None).await.unwrap();
        let expected = answers(&store, 1).await.unwrap();
        let done = store.compact(PATH).await.unwrap();
        let merges = &done.series[0].merges;
        assert_eq!(merges[0].reason, Reason::Layout);
        assert!(merges.len() > 1 && merges[1].files > 1, "{merges:?}");
        laid_out(&store, &LayoutChange::default().with_order(FileOrder::KeyTime)).await.unwrap();
        assert_eq!(store.layout(PATH).await.unwrap().files.len(), 1);
        assert_eq!(answers(&store, 1).await.unwrap(), expected);
    });
}
