//! Views of warm series that are not the head of one: several at once, and points in history.

use tempfile::TempDir;
use tidelog::{Mode, SeriesAppend, SeriesExt, Store, TimeRange};

use super::{SERIES, World, answers_are_the_same, minutes, plan};
use crate::support::{Context, Fallible, runtime, same};

#[test]
fn several_series_are_asked_each_for_itself() {
    let asked = runtime().block_on(async {
        let world = World::default();
        let store = Store::builder("memory://").with_compaction(false).with_partitions(2);
        let store = store.with_mode(Mode::Shared).create().await.at("creating")?;
        for (path, from) in [("/g/a", 0), ("/g/b", 5), ("/g/c", 3)] {
            let batch = world.batch(&minutes(from, from + 9, 7, 10))?;
            let append = SeriesAppend::new(path, batch).with_time_column("time");
            store.root().append_series_data_with_options(append).await.at("appending")?;
        }
        // One stays cold.
        store.warm("/g/[ab]", TimeRange::ALL).await.at("warming")?;
        let from = "FROM series('/g/*')";
        let statements = [
            format!("SELECT _path, count(*), max(usage) {from} GROUP BY _path"),
            format!(
                "SELECT date_trunc('minute', time) AS t, _path, avg(bytes) {from} GROUP BY t, _path"
            ),
            format!("SELECT max(usage), count(note) {from} WHERE up"),
            format!("SELECT * {from} WHERE usage > 2"),
            format!("SELECT _path, time {from} WHERE _path = '/g/b'"),
            format!("SELECT usage, _path {from} ORDER BY usage DESC, time, small, bytes LIMIT 1"),
            format!("SELECT _path, max(time) {from} GROUP BY _path"),
        ];
        let seen = plan(&store, &statements[0]).await?;
        same(&seen, &true, &seen.contains("segments=2"))?;
        answers_are_the_same(&store, &statements).await
    });
    asked.unwrap();
}

#[test]
fn points_in_history_are_seen_as_they_were() {
    let asked: Fallible = runtime().block_on(async {
        let directory = TempDir::new().at("a directory")?;
        let world = World::default();
        let (cold, warm) = ([minutes(0, 5, 5, 0)], [minutes(5, 10, 5, 10)]);
        let store = world.store(&directory, &cold, &warm, &[]).await?;
        // Two versions in one warm file: between them it is not seen whole.
        for from in [10, 12] {
            world.append(&store, &minutes(from, from + 4, 5, 20)).await?;
        }
        store.flush().await.at("flushing")?;
        world.append(&store, &minutes(20, 21, 5, 30)).await?;
        let mut statements = Vec::new();
        for version in 1..=5 {
            let from = format!("FROM series('{SERIES}', 'v{version}')");
            statements.extend([
                format!("SELECT count(*), max(usage), sum(bytes) {from}"),
                format!("SELECT host, count(*), max(small) {from} WHERE usage > 0 GROUP BY host"),
                format!("SELECT * {from} WHERE up"),
                format!("SELECT usage {from} ORDER BY usage LIMIT 4"),
                format!("SELECT host, region, max(time) {from} GROUP BY host, region"),
                format!("SELECT __version, count(*) FROM series_versions('{SERIES}', 'v{version}') GROUP BY 1"),
            ]);
        }
        let inside = plan(&store, &format!("SELECT * FROM series('{SERIES}', 'v3')")).await?;
        same(&inside, &true, &inside.contains("segments=1"))?;
        let versions = plan(&store, &format!("SELECT * FROM series_versions('{SERIES}')")).await?;
        same(&versions, &true, &versions.contains("2 of its files, not used: computed columns"))?;
        answers_are_the_same(&store, &statements).await?;
        let read = store.root().read_series_all(SERIES).await.at("reading")?;
        let rows = crate::support::rows(Ok(read)).await?;
        same("rows that are read", &(60 + 60 + 48 + 48 + 12), &rows.len())
    });
    asked.unwrap();
}
