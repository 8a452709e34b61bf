//! A handle that may be stale for a while asks for the head once in that while, and sees its own
//! writes at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{SeriesExt, Store, StoreBuilder, UpkeepMode};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Request;
use tidelog_testkit::SimClock;

const STALENESS: Duration = Duration::from_secs(600);
const SECOND: i64 = 1_000_000;
const PATH: &str = "/a.series";

struct Fixture {
    clock: Arc<SimClock>,
    counting: CountingStore,
    stale: Store,
    fresh: Store,
}

impl Fixture {
    /// Two handles of one store with one version, the first of them allowed to be stale.
    async fn new() -> Result<Self> {
        let clock = Arc::new(SimClock::at(1_700_000_000 * SECOND));
        let env = tidelog_testkit::env::env(&clock, 1);
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let counting = CountingStore::new(Arc::clone(&objects));
        let builder = |objects: Arc<dyn ObjectStore>| -> StoreBuilder {
            Store::builder("memory://")
                .with_object_store(objects)
                .with_env(env.clone())
                .with_upkeep(UpkeepMode::OnRequest)
        };
        let fresh = builder(objects).create().await?;
        append(&fresh, 0).await?;
        let stale = builder(Arc::new(counting.clone())).with_max_staleness(STALENESS);
        let stale = stale.open().await?;
        let fixture = Self { clock, counting, stale, fresh };
        // The series' own rows are read at the first look.
        fixture.look().await?;
        Ok(fixture)
    }

    /// The newest version that the stale handle sees, and what it asked for.
    async fn look(&self) -> Result<(i64, Vec<Request>)> {
        drop(self.counting.take());
        let seen = self.stale.describe(PATH).await?.version.number();
        Ok((seen, self.counting.take()))
    }
}

async fn append(store: &Store, start: i64) -> Result<()> {
    let times = TimestampMicrosecondArray::from_iter_values([start]);
    let columns: [(&str, ArrayRef); 2] =
        [("time", Arc::new(times)), ("n", Arc::new(Int64Array::from(vec![1])))];
    let batch = RecordBatch::try_from_iter(columns)?;
    store.root().append_series_data(PATH, &batch, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_staleness_a_read_asks_nothing_and_after_it_once() -> Result<()> {
    let fixture = Fixture::new().await?;
    assert_eq!(fixture.look().await?, (1, vec![]));
    append(&fixture.fresh, 10).await?;
    fixture.clock.advance(599 * SECOND);
    assert_eq!(fixture.look().await?, (1, vec![]));
    fixture.clock.advance(2 * SECOND);
    // The commit that landed, with its rows inside, and the one after it that is not there.
    let (seen, asked) = fixture.look().await?;
    assert_eq!((seen, asked.len()), (2, 2), "{asked:?}");
    assert_eq!(fixture.look().await?, (2, vec![]));
    fixture.clock.advance(601 * SECOND);
    let (seen, asked) = fixture.look().await?;
    assert_eq!((seen, asked.len()), (2, 1), "{asked:?}");
    assert_eq!(fixture.look().await?, (2, vec![]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_seen_at_once_and_with_them_what_was_before() -> Result<()> {
    let fixture = Fixture::new().await?;
    append(&fixture.stale, 10).await?;
    assert_eq!(fixture.look().await?, (2, vec![]));
    append(&fixture.fresh, 20).await?;
    assert_eq!(fixture.look().await?, (2, vec![]));
    append(&fixture.stale, 30).await?;
    assert_eq!(fixture.look().await?, (4, vec![]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_every_read_asks_once() -> Result<()> {
    let counting = CountingStore::new(Arc::new(InMemory::new()));
    let objects: Arc<dyn ObjectStore> = Arc::new(counting.clone());
    let store = Store::builder("memory://").with_object_store(objects).create().await?;
    append(&store, 0).await?;
    for _ in 0..3 {
        drop(counting.take());
        store.describe(PATH).await?;
        assert_eq!(counting.take().len(), 1);
    }
    Ok(())
}
