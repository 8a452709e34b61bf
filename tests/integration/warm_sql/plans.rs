//! What plans of warm series look like, and what they say of what was not moved.

use insta::assert_snapshot;
use tempfile::TempDir;
use tidelog::{Store, WarmPushDowns};

use super::{World, minutes, plan};

/// A file that is cold, two that are warm and follow it, and rows in memory.
async fn mixed(directory: &TempDir) -> Store {
    let (cold, warm) =
        ([minutes(0, 10, 10, 0)], [minutes(10, 20, 10, 100), minutes(20, 30, 10, 200)]);
    let hot = [minutes(30, 31, 10, 300)];
    World::default().store(directory, &cold, &warm, &hot).await.unwrap()
}

/// Where all files are warm.
const WARM: &str = "WHERE time >= '1970-01-01T00:10:30Z' AND time < '1970-01-01T00:29:00Z'";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_is_seen() {
    let directory = TempDir::new().unwrap();
    let store = mixed(&directory).await;
    let plan = async |statement: &str| plan(&store, statement).await.unwrap();
    assert_snapshot!(
        "aggregate",
        plan(&format!(
            "SELECT host, date_bin(INTERVAL '1 minute', time) AS t, max(usage) FROM \"/cpu\" {WARM} \
             GROUP BY host, t"
        ))
        .await
    );
    assert_snapshot!(
        "aggregate_beside_files",
        plan("SELECT host, region, avg(usage) FROM \"/cpu\" WHERE up GROUP BY host, region").await
    );
    assert_snapshot!(
        "top_k",
        plan("SELECT usage, note FROM \"/cpu\" ORDER BY usage DESC LIMIT 3").await
    );
    assert_snapshot!(
        "newest_rows",
        plan(&format!("SELECT time, usage FROM \"/cpu\" {WARM} ORDER BY time DESC LIMIT 3")).await
    );
    assert_snapshot!(
        "last",
        plan(
            "SELECT DISTINCT ON (host, region) host, region, usage FROM \"/cpu\" \
              ORDER BY host, region, time DESC"
        )
        .await
    );
    assert_snapshot!("rows", plan("SELECT * FROM \"/cpu\" WHERE usage > 4").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_moved_says_why() {
    let directory = TempDir::new().unwrap();
    let store = mixed(&directory).await;
    let no_scan = store.with_warm_push_downs(&WarmPushDowns::default().with_scan(false));
    for (statement, why) in [
        ("SELECT * FROM \"/cpu\" ORDER BY time", "rows are wanted in order"),
        (
            "SELECT * FROM \"/cpu\" ORDER BY time DESC LIMIT 3",
            "rows are wanted in order, and not all are warm",
        ),
        ("SELECT * FROM \"/cpu\" ORDER BY note LIMIT 3", "order by the text of column \"note\""),
        ("SELECT note, count(*) FROM \"/cpu\" GROUP BY note", "groups by column \"note\""),
        ("SELECT stddev(usage) FROM \"/cpu\"", "the function stddev(/cpu.usage)"),
        ("SELECT host, min(note) FROM \"/cpu\" GROUP BY host", "the function min(/cpu.note)"),
        ("SELECT host, max(odd) FROM \"/cpu\" GROUP BY host", "which has NaN"),
        ("SELECT count(usage) FILTER (WHERE up) FROM \"/cpu\"", "an aggregate with a filter"),
        ("SELECT max(usage) FROM \"/cpu\" WHERE usage > small", "the filter usage"),
        (
            "SELECT host, max(usage) FROM \"/cpu\" GROUP BY ROLLUP (host)",
            "an aggregate with a filter, grouping sets",
        ),
        ("SELECT date_trunc('month', time) AS t, max(usage) FROM \"/cpu\" GROUP BY t", "groups by"),
    ] {
        let found = plan(&no_scan, statement).await.unwrap();
        assert!(found.contains("warm=2 of its files, not used: "), "{found}");
        assert!(found.contains(why), "{why} is not in\n{found}");
    }
    let plan = plan(&no_scan, "SELECT * FROM \"/cpu\"").await.unwrap();
    assert!(plan.contains("warm=2 of its files, not used: switched off"), "{plan}");
    let fetched = super::plan(&store, "SELECT note, count(*) FROM \"/cpu\" GROUP BY note");
    let fetched = fetched.await.unwrap();
    assert!(fetched.contains("fetch, not more: groups by column \"note\""), "{fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_taken_as_far_as_it_can_be() {
    let directory = TempDir::new().unwrap();
    let store = mixed(&directory).await;
    for (filter, words) in [
        ("note LIKE '%1' AND upper(host) = 'H1'", "aggregate: by=[host]"),
        ("usage > small AND up", "fetch, predicate="),
    ] {
        let statement =
            format!("SELECT host, max(bytes) FROM \"/cpu\" WHERE {filter} GROUP BY host");
        let found = plan(&store, &statement).await.unwrap();
        assert!(found.contains("WarmScanExec"), "{found}");
        assert!(found.contains(words), "{found}");
        let afterwards = found.contains("filtered afterwards: ");
        assert_eq!(afterwards, filter.contains("small"), "{found}");
        assert_eq!(found.contains("not more: the filter"), afterwards, "{found}");
    }
    // Files read the other columns only of rows that pass.
    let found = plan(&store, "SELECT * FROM \"/cpu\" WHERE usage > small").await.unwrap();
    assert!(found.contains("warm=2 of its files, not used: the filter usage"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_that_share_times_are_deduplicated() {
    let directory = TempDir::new().unwrap();
    let world = World { dedup: true, ..World::default() };
    let warm = [minutes(0, 5, 5, 0), minutes(5, 10, 5, 10), minutes(10, 15, 5, 20)];
    // The end of one file, and the beginning of the next.
    let store = world.store(&directory, &[], &warm, &[minutes(9, 12, 5, 20)]).await.unwrap();
    let found = plan(&store, "SELECT count(usage) FROM \"/cpu\"").await.unwrap();
    assert!(found.contains("WarmScanExec: series=/cpu, tier=warm (host), segments=1"), "{found}");
    assert!(found.contains("files=2 of 3"), "{found}");
    assert!(found.contains("merge+dedup=1x2"), "{found}");
    // Rows that share times with all of them.
    world.append(&store, &minutes(0, 18, 30, 7)).await.unwrap();
    let found = plan(&store, "SELECT count(usage) FROM \"/cpu\"").await.unwrap();
    let why = "warm=3 of its files, not used: rows are deduplicated";
    assert!(found.contains(why) && !found.contains("WarmScanExec"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_warm_the_last_step_of_an_aggregate_is_moved_too() {
    let directory = TempDir::new().unwrap();
    let store = mixed(&directory).await;
    let aggregate = format!(
        "SELECT host, date_bin(INTERVAL '1 minute', time) AS t, avg(usage) FROM \"/cpu\" {WARM} \
         GROUP BY host, t ORDER BY t, host"
    );
    let newest = format!(
        "SELECT DISTINCT ON (host, region) * FROM \"/cpu\" {WARM} ORDER BY host, region, time DESC"
    );
    for (statement, words) in
        [(aggregate, "whole aggregate: by=[host"), (newest, "whole newest row of each key")]
    {
        let found = plan(&store, &statement).await.unwrap();
        assert!(found.contains(words), "{found}");
        assert!(!found.contains("AggregateExec") && !found.contains("Repartition"), "{found}");
    }
    // A key has several rows among those of each of these groups.
    let by_host = format!(
        "SELECT DISTINCT ON (host) host, usage FROM \"/cpu\" {WARM} ORDER BY host, time DESC"
    );
    let found = plan(&store, &by_host).await.unwrap();
    assert!(found.contains("newest row of each key") && found.contains("AggregateExec"), "{found}");
}
