//! Upkeep changes no answer: whichever of its requests fails, however many do it at once, and
//! whatever is written meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{ErrorKind, SeriesExt, Store, UpkeepMode};
use tidelog_storage::counting::Operation;
use tidelog_testkit::{Fault, FaultError, FaultStore};

use crate::support::{Context, Fallible, fail_each_request, runtime, same};

const SERIES: [&str; 3] = ["/a/one.series", "/a/two.series", "/three.series"];

fn builder(store: &Arc<dyn ObjectStore>) -> tidelog::StoreBuilder {
    let builder = Store::builder("memory://").with_object_store(Arc::clone(store));
    builder.with_partitions(1).with_upkeep(UpkeepMode::OnRequest)
}

fn batch(number: i64) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values([number, number + 1]);
    let numbers = Int64Array::from_iter_values([number, number]);
    let columns: [(&str, ArrayRef); 2] =
        [("time", Arc::new(times.with_timezone("UTC"))), ("number", Arc::new(numbers))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A store with a log worth keeping: merged in part, with checkpoints, and nothing retained.
async fn filled() -> Fallible<Arc<dyn ObjectStore>> {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = builder(&memory).with_log_retention(Duration::ZERO).create().await.at("create")?;
    for number in 0..24 {
        append(&store, number).await?;
        if number % 10 == 7 {
            store.maintain(false).await.at("maintain")?;
        }
    }
    Ok(memory)
}

async fn append(store: &Store, number: i64) -> Fallible {
    let path = SERIES[usize::try_from(number).unwrap() % SERIES.len()];
    store.root().append_series_data(path, &batch(number), None).await.map(drop).at("append")
}

/// What a fresh handle finds: of each series the transaction ids of its versions, in order.
async fn found(store: &Arc<dyn ObjectStore>) -> Fallible<Vec<Vec<String>>> {
    let store = builder(store).open().await.at("open")?;
    let mut all = Vec::new();
    for path in SERIES {
        let versions = store.versions(path).await.at("versions")?;
        let dense = versions.iter().zip(1..).all(|(info, n)| info.version.number() == n);
        same("dense versions", &true, &dense)?;
        all.push(versions.iter().map(|info| info.transaction.to_string()).collect());
    }
    Ok(all)
}

async fn copy(of: &Arc<dyn ObjectStore>) -> Fallible<Arc<dyn ObjectStore>> {
    use futures::TryStreamExt;
    use tidelog::object_store::ObjectStoreExt;
    let to: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let objects: Vec<_> = of.list(None).try_collect().await.at("list")?;
    for meta in objects {
        let bytes = of.get(&meta.location).await.at("get")?.bytes().await.at("bytes")?;
        to.put(&meta.location, bytes.into()).await.at("put")?;
    }
    Ok(to)
}

/// One upkeep in which one request fails; whether there was such a request.
async fn with_fault(original: &Arc<dyn ObjectStore>, fault: Fault) -> Fallible<bool> {
    let bare = copy(original).await?;
    let before = found(&bare).await?;
    let failing = Arc::new(FaultStore::new(Arc::clone(&bare)));
    let shared: Arc<dyn ObjectStore> = Arc::clone(&failing) as Arc<dyn ObjectStore>;
    let store = builder(&shared).open().await.at("open")?;
    failing.inject(fault);
    let outcome = store.maintain(true).await;
    let injected = failing.injected() > 0;
    failing.heal();
    same("what is found after it", &before, &found(&bare).await?)?;
    if let Err(error) = &outcome {
        same(format!("the kind of {error}"), &false, &(error.kind() == ErrorKind::Internal))?;
    }
    store.maintain(true).await.at("again")?;
    append(&store, 100).await?;
    let mut expected = before;
    let after = found(&bare).await?;
    expected[1].extend(after[1].last().cloned());
    same("what is found after it was done again", &expected, &after)?;
    Ok(injected)
}

#[test]
fn whichever_request_of_upkeep_fails_nothing_is_lost() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let original = filled().await.unwrap();
        let cases = fail_each_request(async |fault| with_fault(&original, fault).await).await;
        assert!(cases > 60, "{cases} cases");
    });
}

#[test]
fn upkeepers_race_each_other_and_writers_and_nobody_loses() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let failing = Arc::new(FaultStore::new(memory));
        failing.set_latency(7, Duration::ZERO, Duration::from_millis(3));
        let shared: Arc<dyn ObjectStore> = failing;
        builder(&shared).with_log_retention(Duration::from_secs(2)).create().await.unwrap();
        let writer = |first: i64| {
            let shared = Arc::clone(&shared);
            async move {
                let store = builder(&shared).open().await.at("open")?;
                for number in 0..30 {
                    append(&store, first + number).await?;
                }
                Fallible::Ok(())
            }
        };
        let upkeeper = || {
            let shared = Arc::clone(&shared);
            async move {
                for _ in 0..8 {
                    let store = builder(&shared).open().await.at("open")?;
                    store.maintain(false).await.at("maintain")?;
                }
                Fallible::Ok(())
            }
        };
        let done = tokio::join!(writer(0), writer(1000), writer(2000), upkeeper(), upkeeper());
        let (a, b, c, d, e) = done;
        for outcome in [a, b, c, d, e] {
            outcome.unwrap();
        }
        let versions: usize = found(&shared).await.unwrap().iter().map(Vec::len).sum();
        assert_eq!(versions, 90);
    });
}

/// A handle that sleeps while all it knows expires reads and writes correctly when it wakes.
#[test]
fn a_handle_that_slept_through_the_retention_begins_anew() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let busy = builder(&memory).with_log_retention(Duration::ZERO).create().await.unwrap();
        for number in 0..6 {
            append(&busy, number).await.unwrap();
        }
        let sleeper = builder(&memory).open().await.unwrap();
        append(&sleeper, 6).await.unwrap();
        for number in 7..40 {
            append(&busy, number).await.unwrap();
            busy.maintain(number % 3 == 0).await.unwrap();
        }
        append(&sleeper, 40).await.unwrap();
        let versions: usize = found(&memory).await.unwrap().iter().map(Vec::len).sum();
        assert_eq!(versions, 41);
        let seen = sleeper.versions(SERIES[1]).await.unwrap().len();
        assert_eq!(seen, busy.versions(SERIES[1]).await.unwrap().len());
    });
}

/// With both in one commit no reader could take it, and nothing in the store could be read any more.
#[test]
fn two_merges_of_the_same_parts_by_one_handle_do_not_land_together() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let slow = FaultStore::new(Arc::clone(&memory));
        let shared: Arc<dyn ObjectStore> = Arc::new(slow.clone());
        let store = builder(&shared).create().await.unwrap();
        for number in 0..8 {
            append(&store, number).await.unwrap();
        }
        let parts = || {
            let puts = slow.trace().into_iter();
            puts.filter(|(kind, path)| *kind == Operation::Put && path.contains("part-")).count()
        };
        let before = parts();
        // Whatever is asked for while a commit is under way shares the next one.
        let commit = Fault::new(FaultError::Generic).on(Operation::Put).at_path(".json");
        let hold = slow.hold(commit);
        let appending = tokio::spawn({
            let store = store.clone();
            async move { append(&store, 8).await }
        });
        hold.reached().await;
        let maintain = || {
            let store = store.clone();
            tokio::spawn(async move { store.maintain(false).await })
        };
        let both = [maintain(), maintain()];
        // The append's part, and of each merge one of the tree and one of series.
        while parts() < before + 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        hold.release();
        appending.await.unwrap().unwrap();
        for one in both {
            one.await.unwrap().unwrap();
        }
        let versions: usize = found(&memory).await.unwrap().iter().map(Vec::len).sum();
        assert_eq!(versions, 9);
        assert!(builder(&memory).fsck(true).await.unwrap().is_intact());
    });
}
