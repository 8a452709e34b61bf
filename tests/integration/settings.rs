//! Do settings come from the layer that should win, is all that is wrong told with its place, and do
//! open stores take what they may?

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use proptest::prelude::*;
use tempfile::TempDir;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::object_store::memory::InMemory;
use tidelog::settings::{Origin, SETTINGS, check_file};
use tidelog::{ErrorKind, Layers, Mode, SeriesExt, Store, StoreBuilder, WalDurability};
use tidelog_storage::CountingStore;

use crate::support::{Context, Fallible, property, runtime, same};

const PATH: &str = "/a.series";
const TOML: &str = "tidelog.toml";

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    file
}

async fn append(store: &Store, rows: i64) {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(0..rows));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = RecordBatch::try_from_iter([("time", times), ("n", numbers)]).unwrap();
    store.root().append_series_data(PATH, &batch, None).await.unwrap();
}

/// Waits, however long it takes a slow machine; a hang is told as one.
async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(120);
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn until_flushed(store: &Store, what: &str) {
    soon(what, async {
        while store.tiers().unwrap().hot_rows > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn names(changes: &[tidelog::settings::SettingChange]) -> Vec<&'static str> {
    changes.iter().map(|change| change.name).collect()
}

/// The layers that set the same setting, lowest first.
const LAYERS: [(&str, &str, u64); 5] = [
    ("program", "111", 111),
    ("preset", "small", 100_000),
    ("file", "333", 333),
    ("environment", "444", 444),
    ("flag", "555", 555),
];

async fn layered(present: [bool; 5], json: bool) -> Fallible {
    let directory = TempDir::new().unwrap();
    let mut layers = Layers::new();
    if present[0] {
        layers = layers.with_default("hot_max_rows", "111");
    }
    if present[1] {
        layers = layers.with_environment([variable("TIDELOG_PRESET", "small")]);
    }
    if present[2] {
        let file = match json {
            true => write(directory.path(), "a.json", "{\"hot_max_rows\": 333}"),
            false => write(directory.path(), "a.toml", "hot_max_rows = 333"),
        };
        layers = layers.with_config_file(file);
    }
    if present[3] {
        layers = layers.with_environment([variable("TIDELOG_HOT_MAX_ROWS", "444")]);
    }
    if present[4] {
        layers = layers.with_flag("hot_max_rows", "555");
    }
    let loaded = layers.load().await.at("loading")?;
    let winner = (0..5).rev().find(|layer| present[*layer]).map(|layer| LAYERS[layer]);
    let (name, _, value) = winner.unwrap_or(("default", "", 1_000_000));
    same("value", &value, &loaded.settings.hot_max_rows)?;
    same("layer", &name, &loaded.origin("hot_max_rows").name())?;
    let cached = if present[1] { 256 << 20 } else { 1 << 30 };
    same("what only the preset says", &cached, &loaded.settings.cache_size)
}

#[test]
fn the_highest_layer_that_says_anything_wins() {
    let runtime = runtime();
    property(64, (any::<[bool; 5]>(), any::<bool>()), |(present, json)| {
        runtime.block_on(layered(present, json))
    });
}

#[tokio::test]
async fn calls_win_over_all_and_the_stores_own_file_over_defaults() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().to_str().unwrap();
    Store::create(place).await.unwrap();
    write(directory.path(), TOML, "hot_max_rows = 5\nmode = \"exclusive\"\nwal_dir = \"log\"");
    let store = Store::builder(place)
        .with_environment([variable("TIDELOG_HOT_MAX_ROWS", "6")])
        .with_hot_age_max(Duration::MAX)
        .open()
        .await
        .unwrap();
    let settings = store.settings();
    assert_eq!((settings.hot_max_rows, settings.mode), (6, Mode::Exclusive));
    append(&store, 3).await;
    assert!(directory.path().join("log").is_dir(), "directories count from the file's");
    store.close().await.unwrap();
    let called = Store::builder(place).with_hot_max(7, 1 << 20).with_mode(Mode::Shared);
    let called = called.open().await.unwrap().settings();
    assert_eq!((called.hot_max_rows, called.mode), (7, Mode::Shared));
    let without = Store::builder(place).without_config_file().open().await.unwrap();
    assert_eq!(without.settings().hot_max_rows, 1_000_000);
    let named = write(directory.path(), "other.json", "{\"hot_max_rows\": 8}");
    let named = Store::builder(place).with_config_file(named).open().await.unwrap();
    assert_eq!((named.settings().hot_max_rows, named.settings().wal_dir), (8, None));
}

/// Values that no setting of this name takes.
fn bad_values(name: &str) -> &'static [&'static str] {
    match name {
        "preset" => &["huge", "Small", "7"],
        "mode" => &["both", "Exclusive", "7"],
        "durability" => &["disk", "interval", "interval:250"],
        "hot_max_rows" | "partitions" => &["lots", "0", "-1", "1.5", "1MB"],
        "hot_max_bytes" | "wal_max_bytes" | "memory" | "cache_size" | "compaction_target"
        | "compaction_rate" | "warm_max_bytes" => &["lots", "0", "-1", "1.5GB"],
        "hot_max_age" | "max_staleness" => &["soon", "10", "-1s"],
        "log_retention" => &["soon", "10", "1500ms"],
        "key_pruning" | "compaction" => &["yes", "1"],
        "upkeep" => &["never", "1"],
        "warm_backend" => &["gpu", "on", "Host"],
        "warm_device" => &["first", "-1", "0.5"],
        "warm_keep" => &["on", "7", "recent", "-1d"],
        _ => &[""],
    }
}

#[tokio::test]
async fn a_bad_value_is_told_with_its_place_wherever_it_is_written() {
    let directory = TempDir::new().unwrap();
    for setting in SETTINGS {
        for bad in bad_values(setting.name) {
            let toml = format!("# a comment\n\n{} = {bad:?}\n", setting.name);
            let json = format!("{{\n\n\"{}\": {bad:?}}}", setting.name);
            for (name, text) in [("a.toml", toml), ("a.json", json)] {
                let file = write(directory.path(), name, &text);
                let said = check_file(&file).await.unwrap_err();
                assert_eq!(said.kind(), ErrorKind::InvalidInput);
                let place = format!("{}, line 3: {}: ", file.display(), setting.name);
                let said = said.to_string();
                if setting.name == "log_retention" && *bad == "1500ms" {
                    assert!(said.contains("line 3: ") && said.contains("whole seconds"), "{said}");
                } else {
                    assert!(said.starts_with(&place), "{said}");
                    assert!(said.contains("it takes "), "{said}");
                }
            }
            let flag = Layers::new().with_flag(setting.name, bad).load().await.unwrap_err();
            assert!(flag.to_string().starts_with(&format!("{}: ", setting.flag())), "{flag}");
            if bad.is_empty() {
                continue;
            }
            let environment = Layers::new().with_environment([variable(&setting.variable(), bad)]);
            let said = environment.load().await.unwrap_err().to_string();
            let place = format!("environment, {}: ", setting.variable());
            assert!(said.starts_with(&place), "{said}");
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_with_the_nearest_names() {
    let directory = TempDir::new().unwrap();
    let text = "hot_max_row = 5\nmemory = \"lots\"\nzebra = 1\n[hot]\nrows = 1\n";
    let file = write(directory.path(), "a.toml", text);
    let layers = Layers::new()
        .with_config_file(&file)
        .with_environment([
            variable("TIDELOG_MODES", "shared"),
            variable("TIDELOG_MODE", "both"),
            variable("OTHER_MODE", "both"),
            variable("TIDELOG_CACHE", ""),
        ])
        .with_flag("hot-max-rows", "5");
    let said = layers.load().await.unwrap_err().to_string();
    for part in [
        "a.toml, line 1: \"hot_max_row\" is no setting; did you mean hot_max_rows?",
        "a.toml, line 2: memory: \"lots\" is not a size",
        "a.toml, line 3: \"zebra\" is no setting; `tidelog config show` lists all settings",
        "a.toml, line 4: \"hot\" is no setting",
        "environment, TIDELOG_MODES: \"TIDELOG_MODES\" is no setting; did you mean TIDELOG_MODE?",
        "environment, TIDELOG_MODE: mode: ",
        "--hot-max-rows: \"hot-max-rows\" is no setting; did you mean hot_max_rows?",
    ] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
    assert!(!said.contains("OTHER_MODE") && !said.contains("TIDELOG_CACHE"), "{said}");
}

#[tokio::test]
async fn files_that_cannot_be_meant_are_refused_and_the_store_is_not_opened() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().to_str().unwrap();
    let store = Store::create(place).await.unwrap();
    drop(store);
    let refused = async |text: &str| {
        write(directory.path(), TOML, text);
        let error = Store::open(place).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.settings().is_some());
        error.to_string()
    };
    assert!(refused("mode = ").await.contains("tidelog.toml, line 1: "));
    assert!(refused("mode = \"shared\"\nmode = \"shared\"").await.contains("line 2: "));
    assert!(refused("\nstore = \"x\"").await.contains("line 2: store: a file in a store's"));
    write(directory.path(), TOML, "mode = \"shared\"");
    let second = write(directory.path(), "tidelog.json", "{}");
    let error = Store::open(place).await.unwrap_err().to_string();
    assert!(error.contains("tidelog.json") && error.contains("keep one file"), "{error}");
    fs::remove_file(second).unwrap();
    Store::open(place).await.unwrap();
    fs::write(directory.path().join(TOML), b"mode = 1\n\n\xff").unwrap();
    let error = Store::open(place).await.unwrap_err().to_string();
    assert!(error.contains("line 3: it is not UTF-8"), "{error}");
    let missing = Store::builder(place).with_config_file(directory.path().join("no.toml"));
    let error = missing.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no.toml"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_a_directory_is_one_writers_alone_unless_somebody_says_otherwise() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().to_str().unwrap();
    let wal = directory.path().join("_wal");
    let first = Store::create(place).await.unwrap();
    let second = Store::open(place).await.unwrap();
    assert_eq!(first.settings().mode, Mode::Exclusive);
    assert!(!wal.exists(), "it is claimed at the first write");
    append(&first, 1).await;
    assert!(wal.exists() && first.tiers().is_some());
    let refused = second.root().append_series_data(PATH, &one_row(), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    first.close().await.unwrap();
    append(&second, 1).await;
    second.close().await.unwrap();
    let mode =
        async |builder: StoreBuilder| builder.open_or_create().await.unwrap().settings().mode;
    assert_eq!(mode(Store::builder(format!("file://{place}"))).await, Mode::Exclusive);
    assert_eq!(mode(Store::builder(place).with_mode(Mode::Shared)).await, Mode::Shared);
    assert_eq!(mode(Store::builder("memory://")).await, Mode::Shared);
    let given = Store::builder(place).with_object_store(Arc::new(InMemory::new()));
    assert_eq!(mode(given).await, Mode::Shared);
    write(directory.path(), TOML, "mode = \"shared\"");
    assert_eq!(mode(Store::builder(place)).await, Mode::Shared);
    let program = Store::builder(place).with_layers(Layers::new().with_default("mode", "shared"));
    assert_eq!(mode(program.without_config_file()).await, Mode::Shared);
}

/// A store alone in its directory, whose file says `text`.
async fn alone(directory: &Path, text: &str) -> Store {
    write(directory, TOML, text);
    let builder = Store::builder(directory.to_str().unwrap()).with_mode(Mode::Exclusive);
    builder.open_or_create().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_of_what_is_gathered_has_its_effect_when_it_is_reloaded() {
    const OLD: &str = "hot_max_age = \"1d\"";
    for (limit, name) in [
        ("hot_max_rows = 50", "hot_max_rows"),
        ("hot_max_bytes = 1", "hot_max_bytes"),
        ("wal_max_bytes = 1", "wal_max_bytes"),
        ("preset = \"small\"\nhot_max_bytes = \"1 B\"", "hot_max_bytes"),
        ("", "hot_max_age"),
    ] {
        let directory = TempDir::new().unwrap();
        let store = alone(directory.path(), OLD).await;
        append(&store, 100).await;
        assert!(store.reload_config().await.unwrap().is_empty());
        assert_eq!(store.tiers().unwrap().hot_rows, 100);
        let text = match limit {
            "" => "hot_max_age = \"1ms\"".to_owned(),
            limit => format!("{OLD}\n{limit}"),
        };
        write(directory.path(), TOML, &text);
        let reloaded = store.reload_config().await.unwrap();
        assert!(names(&reloaded.applied).contains(&name), "{reloaded:?}");
        until_flushed(&store, name).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_staleness_have_their_effect_when_they_are_reloaded() {
    let directory = TempDir::new().unwrap();
    let file = write(directory.path(), "a.toml", "partitions = 3\nmax_staleness = \"1h\"");
    let counting = CountingStore::new(Arc::new(InMemory::new()));
    let store = Store::builder("memory://")
        .with_object_store(Arc::new(counting.clone()))
        .with_config_file(&file);
    let store = store.create().await.unwrap();
    append(&store, 10).await;
    let plan = async || {
        let statement = "EXPLAIN SELECT n, count(*) FROM \"/a.series\" GROUP BY n";
        let rows: Vec<RecordBatch> =
            store.sql(statement).await.unwrap().try_collect().await.unwrap();
        format!("{rows:?}")
    };
    let asked = async || {
        drop(counting.take());
        store.describe(PATH).await.unwrap();
        counting.take().len()
    };
    assert!(plan().await.contains("], 3)"), "{}", plan().await);
    assert_eq!(asked().await, 0);
    fs::write(&file, "partitions = 7").unwrap();
    let reloaded = store.reload_config().await.unwrap();
    assert_eq!(names(&reloaded.applied), ["partitions", "max_staleness"]);
    assert_eq!(reloaded.applied[0].to_string(), "partitions: 3 → 7");
    assert_eq!(reloaded.applied[1].to_string(), "max_staleness: 1h → 0s");
    assert!(plan().await.contains("], 7)"), "{}", plan().await);
    assert!(asked().await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_change_under_way_does_not() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path(), "").await;
    append(&store, 1).await;
    let before = store.settings();
    let text = "durability = \"memory\"\nwal_dir = \"elsewhere\"\nlog_retention = \"1h\"
        memory = \"1GB\"\nkey_pruning = false\nupkeep = \"on_request\"\ncache = \"c\"\ncache_size = 1
        warm_backend = \"host\"\nwarm_device = 1\nwarm_max_bytes = \"1MB\"\nwarm_keep = \"off\"
        mode = \"shared\"\nhot_max_rows = 77";
    write(directory.path(), TOML, text);
    let reloaded = store.reload_config().await.unwrap();
    assert_eq!(names(&reloaded.applied), ["hot_max_rows", "warm_keep"]);
    assert_eq!(names(&reloaded.refused), ["wal_dir", "durability", "log_retention"]);
    assert_eq!(reloaded.refused[1].to_string(), "durability: sync → memory");
    // The mode was set by a call, which wins.
    let warm = ["warm_backend", "warm_device", "warm_max_bytes"];
    let expected = [&["memory", "key_pruning", "upkeep"][..], &warm, &["cache", "cache_size"]];
    assert_eq!(names(&reloaded.need_restart), expected.concat());
    let after = store.settings();
    assert_eq!(after.hot_max_rows, 77);
    assert_eq!((after.durability, after.wal_dir), (WalDurability::Sync, before.wal_dir));
    assert_eq!(after.memory, before.memory);
    let receipt = store.root().append_series_data(PATH, &one_row(), None).await.unwrap();
    assert_eq!(receipt.durability, tidelog::Durability::Synced);
    assert!(!directory.path().join("elsewhere").exists());
    // As long as they are not applied, they are told.
    assert_eq!(store.reload_config().await.unwrap().refused, reloaded.refused);
    store.close().await.unwrap();
}

fn one_row() -> RecordBatch {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values([5]));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values([5]));
    RecordBatch::try_from_iter([("time", times), ("n", numbers)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_wrong_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path(), "hot_max_rows = 10").await;
    write(directory.path(), TOML, "hot_max_rows = 20\nhot_max_byte = 5");
    let error = store.reload_config().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("line 2: "), "{error}");
    assert_eq!(store.settings().hot_max_rows, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_applies_what_changes_in_the_file_and_leaves_no_task() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path(), "hot_max_rows = 1000").await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    let mut watch = store.watch_config(Duration::from_millis(10));
    let next = async |watch: &mut tidelog::ConfigWatch| soon("a change", watch.changed()).await;
    // Its first look may come after a write, so each waits for the outcome that it wants.
    let mut rows = 1000;
    while store.settings().hot_max_rows == 1000 {
        rows += 1;
        write(directory.path(), TOML, &format!("hot_max_rows = {rows}{}", " ".repeat(rows - 1000)));
        let _ = tokio::time::timeout(Duration::from_millis(200), watch.changed()).await;
    }
    write(directory.path(), TOML, "hot_max_rows = none");
    loop {
        if let Err(error) = next(&mut watch).await {
            assert!(error.to_string().contains("line 1: "), "{error}");
            break;
        }
    }
    assert!(store.settings().hot_max_rows > 1000);
    fs::remove_file(directory.path().join(TOML)).unwrap();
    loop {
        if let Ok(reloaded) = next(&mut watch).await {
            assert_eq!(names(&reloaded.applied), ["hot_max_rows"]);
            break;
        }
    }
    assert_eq!(store.settings().hot_max_rows, 1_000_000);
    drop(watch);
    soon("the end of the task", async {
        while metrics.num_alive_tasks() > tasks {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn places_are_shown_without_what_opens_doors() {
    let secret = "s3://bucket/p?secret_access_key=canary";
    let layers = Layers::new()
        .with_environment([variable("TIDELOG_STORE", secret)])
        .with_flag("store", secret);
    let loaded = layers.load().await.unwrap();
    assert!(!loaded.settings.value("store").unwrap().contains("canary"));
    assert!(!format!("{layers:?}").contains("canary"));
    assert_eq!(loaded.origin("store"), Origin::Flag { flag: "--store".to_owned() });
}

#[test]
fn the_documented_table_is_the_table() {
    let text = include_str!("../../docs/configuration.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("`TIDELOG_")).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            format!(
                "| `{}` | `{}` | `{}` | {} | {} | {} |",
                setting.name,
                setting.variable(),
                setting.flag(),
                setting.takes,
                setting.default,
                setting.changeable.name()
            )
        })
        .collect();
    assert_eq!(rows, expected);
    for preset in [tidelog::Preset::Ingest, tidelog::Preset::Query, tidelog::Preset::Small] {
        let sets: Vec<String> =
            preset.settings().iter().map(|(name, value)| format!("`{name}` {value}")).collect();
        let row = format!("| `{}` | {} | ", preset.name(), sets.join(", "));
        assert!(text.contains(&row), "{row}");
    }
}
