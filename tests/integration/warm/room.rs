//! Memory of the warm tier is counted, and given to others.

use tidelog_core::{Holder, PathPattern, TimeRange};
use tidelog_store::Engine;

use super::seen::{append, batch, create, engine_alone, numbers, path, shared};

fn warm(engine: &Engine) -> u64 {
    engine.memory().usage().held_by(Holder::Warm)
}

async fn filled() -> Engine {
    let engine = create(&shared()).await;
    for version in 0..4 {
        append(&engine, batch(version * 20_000, 20_000, version * 10_000)).await;
    }
    engine.fill_warm(&PathPattern::parse("/**").unwrap(), TimeRange::ALL).await.unwrap();
    assert_eq!(numbers(&engine).await.1.warm, 80_000);
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_before_something_is_warm() {
    let (engine, _directory) = engine_alone().await;
    append(&engine, batch(0, 100, 0)).await;
    assert_eq!((warm(&engine), engine.warm().stats().backend.as_str()), (0, "idle"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_count_as_long_as_they_are_there() {
    let engine = filled().await;
    let stats = engine.warm().stats();
    // Times, numbers and values, of 8 bytes each.
    assert!(stats.used_bytes >= 80_000 * 24, "{stats:?}");
    // Beside the segments there are texts and keys, which are few.
    let beside = warm(&engine) - stats.used_bytes;
    assert!((1..64 << 10).contains(&beside), "{beside}");
    engine.delete_rows(&path(), TimeRange::ALL, None).await.unwrap();
    engine.head().await.unwrap();
    assert_eq!((warm(&engine), engine.warm().stats().used_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_get_what_segments_have() {
    let engine = filled().await;
    let memory = engine.memory().clone();
    let before = warm(&engine);
    let reach = memory.within_reach(Holder::Queries);
    let mut queries = memory.account(Holder::Queries);
    queries.try_set(reach - (1 << 20)).unwrap();
    let usage = memory.usage();
    assert!(usage.held() <= usage.limit() && usage.peak() <= usage.limit());
    assert!(warm(&engine) < before, "{} of {before}", warm(&engine));
    let (found, tiers) = numbers(&engine).await;
    assert_eq!(found.len(), 80_000);
    assert!(tiers.cold > 0, "{tiers:?}");
    assert!(engine.warm().stats().evictions > 0);
}
