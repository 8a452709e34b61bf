//! When a flush waits.

use arrow::array::{ArrayRef, Int64Array};
use futures::FutureExt;
use tidelog_core::{AsOf, Env, PathPattern, TimeUnit, TreePath};
use tidelog_storage::object_store::memory::InMemory;

use super::*;
use crate::append::Append;
use crate::engine::{Engine, EngineOptions, Mode, schema_of};
use crate::upkeep::UpkeepMode;

/// A series of so many files over the same event times, which nobody merges unasked.
async fn series(engine: &Engine, path: &TreePath, files: usize) -> NodeId {
    for _ in 0..files {
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let rows = RecordBatch::try_from_iter([("time", times)]).unwrap();
        let append = Append::new(path.clone(), rows).with_time_unit(TimeUnit::Second);
        engine.append(append).await.unwrap();
    }
    // Its rows of the log are in memory from now on.
    engine.series(path, &AsOf::Head).await.unwrap();
    engine.ground().log.snapshot().tree().resolve(path).unwrap().id
}

async fn engine() -> Engine {
    let mut options = EngineOptions::default();
    (options.mode, options.upkeep) = (Mode::Shared, UpkeepMode::OnRequest);
    options.compaction.in_background = false;
    Engine::create(Arc::new(InMemory::new()), Env::default(), &options).await.unwrap()
}

/// A generation with the series.
fn rows_of(engine: &Engine, node: NodeId) -> Generation {
    let snapshot = engine.ground().log.snapshot();
    let path = snapshot.tree().path_of(node).unwrap();
    let schema = schema_of(&path, snapshot.tree().node(node).unwrap()).unwrap().unwrap();
    let mut generation = Generation::default();
    generation.series.insert_mut(node, HotSeries::new(Arc::new(schema)));
    generation
}

#[tokio::test]
async fn a_flush_waits_for_merges_only_of_a_series_of_its_own_that_is_deep() {
    let engine = engine().await;
    let [deep, shallow] = ["/deep.series", "/shallow.series"].map(|p| TreePath::parse(p).unwrap());
    let nodes = (series(&engine, &deep, 32).await, series(&engine, &shallow, 31).await);
    let flusher = Flusher {
        ground: engine.ground().clone(),
        writer: engine.writer(),
        epoch: Uuid::nil(),
        wal: WalId::random(engine.env().randomness.as_ref()),
    };
    let (rows_of_deep, rows_of_shallow) = (rows_of(&engine, nodes.0), rows_of(&engine, nodes.1));
    let waits = |generation| flusher.wait_for_merges(generation).now_or_never().is_none();
    assert!(!waits(&rows_of_deep), "nobody merges");

    let settling = engine.touched().settle(nodes.1);
    assert!(!waits(&rows_of_shallow), "31 files are not too many");
    assert!(!waits(&rows_of_deep), "another series is merged");
    drop(settling);

    let settling = engine.touched().settle(nodes.0);
    assert!(!waits(&rows_of_shallow), "it has no rows of the series that is merged");
    let mut waiting = Box::pin(flusher.wait_for_merges(&rows_of_deep));
    assert!((&mut waiting).now_or_never().is_none(), "32 files lie over one another");
    settling.note_merge();
    assert!((&mut waiting).now_or_never().is_none(), "and still do");
    engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
    settling.note_merge();
    assert!((&mut waiting).now_or_never().is_some());
}
