use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{Error, ObjectStoreExt};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tempfile::TempDir;

use super::block::BLOCK_BYTES;
use super::*;
use crate::CountingStore;
use crate::counting::Operation;

const B: u64 = BLOCK_BYTES;
const ROOM: u64 = 1 << 30;

/// A store of two objects whose requests are counted, and the directory of a cache.
struct Bed {
    inner: CountingStore,
    object: Path,
    bytes: Bytes,
    directory: TempDir,
}

impl Bed {
    async fn new(size: u64) -> Self {
        let store = InMemory::new();
        // Fibonacci hashing: no two blocks are alike.
        let byte = |at: u64| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0];
        let bytes: Bytes = (0..size).map(byte).collect();
        let object = Path::from("kept/one");
        for path in [object.clone(), Path::from("other/one")] {
            store.put(&path, bytes.clone().into()).await.unwrap();
        }
        let inner = CountingStore::new(Arc::new(store));
        Self { inner, object, bytes, directory: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> ReadCache {
        self.cache_at(self.directory.path(), ROOM)
    }

    fn cache_at(&self, directory: &FilePath, bytes_max: u64) -> ReadCache {
        self.cache_of(Arc::new(self.inner.clone()), directory, bytes_max)
    }

    fn cache_of(
        &self,
        inner: Arc<dyn ObjectStore>,
        directory: &FilePath,
        bytes_max: u64,
    ) -> ReadCache {
        let kept = |path: &Path| path.as_ref().starts_with("kept/");
        ReadCache::new(inner, "s3://bucket/store", kept, directory, bytes_max, &Env::default())
    }

    fn slice(&self, range: Range<u64>) -> Bytes {
        self.bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
    }

    /// Reads a range and checks the answer.
    async fn reads(&self, cache: &ReadCache, range: Range<u64>) {
        let found = cache.get_range(&self.object, range.clone()).await.unwrap();
        assert!(found == self.slice(range.clone()), "{range:?}");
    }

    /// The bytes that were asked for upstream since the last call, by request.
    fn asked(&self) -> Vec<u64> {
        let mut asked: Vec<u64> = self.inner.take().iter().map(|request| request.bytes).collect();
        asked.sort_unstable();
        asked
    }

    fn files(&self) -> Vec<PathBuf> {
        files_below(self.directory.path())
    }
}

fn files_below(folder: &FilePath) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = entries.flatten().map(|entry| entry.path()).flat_map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    let mut files: Vec<PathBuf> = below.collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_was_read_once_is_not_asked_for_again() {
    let bed = Bed::new(5 * B + 100).await;
    let cache = bed.cache();
    bed.reads(&cache, 10..20).await;
    assert_eq!(bed.asked(), [B]);
    // The same, overlapping, and by another handle on the directory.
    bed.reads(&cache, 10..20).await;
    bed.reads(&cache, 0..B).await;
    bed.reads(&bed.cache(), 5..B - 5).await;
    assert!(bed.asked().is_empty());
    // Only what is missing: neighbours in one request, gaps in several.
    bed.reads(&cache, 3 * B..3 * B + 1).await;
    assert_eq!(bed.asked(), [B]);
    bed.reads(&cache, 5..5 * B + 50).await;
    assert_eq!(bed.asked(), [B + 100, 2 * B]);
    bed.reads(&cache, 0..5 * B + 100).await;
    assert!(bed.asked().is_empty());
    let statistics = cache.statistics();
    assert_eq!((statistics.hits, statistics.misses), (10, 6));
    assert_eq!(statistics.bytes_stored, 5 * B + 100);
    assert_eq!(statistics.bytes_served, 9 * B + 100);
}

/// Stores below a prefix answer by the whole name.
#[tokio::test]
async fn a_store_below_a_prefix_is_kept_too() {
    let bed = Bed::new(B + 1).await;
    bed.inner.copy(&bed.object, &Path::from("below/kept/one")).await.unwrap();
    let below = Arc::new(PrefixStore::new(bed.inner.clone(), "below"));
    let plain = below.get(&bed.object).await.unwrap();
    let cache = bed.cache_of(below, bed.directory.path(), ROOM);
    bed.reads(&cache, 0..B + 1).await;
    drop(bed.asked());
    bed.reads(&cache, 0..B + 1).await;
    assert_eq!(cache.get(&bed.object).await.unwrap().meta, plain.meta);
    assert!(bed.asked().is_empty());
}

#[tokio::test]
async fn several_ranges_share_their_blocks() {
    let bed = Bed::new(4 * B).await;
    let cache = bed.cache();
    let ranges = [0..10, 5..20, 3 * B - 5..3 * B + 5, 4 * B - 1..4 * B];
    for _ in 0..2 {
        let found = cache.get_ranges(&bed.object, &ranges).await.unwrap();
        let expected: Vec<Bytes> = ranges.iter().map(|range| bed.slice(range.clone())).collect();
        assert!(found == expected);
    }
    assert_eq!(bed.asked(), [B, 2 * B]);
}

#[tokio::test]
async fn whole_objects_are_kept_with_what_the_store_says_about_them() {
    for size in [1, B, 3 * B + 7] {
        let bed = Bed::new(size).await;
        let cache = bed.cache();
        let plain = bed.inner.get(&bed.object).await.unwrap();
        drop(bed.asked());
        for expected in [vec![size], vec![]] {
            let found = cache.get(&bed.object).await.unwrap();
            assert_eq!((&found.meta, &found.range), (&plain.meta, &plain.range));
            assert!(found.bytes().await.unwrap() == bed.bytes);
            assert_eq!(bed.asked(), expected);
        }
        bed.reads(&cache, 0..1).await;
        assert!(bed.asked().is_empty());
    }
    let empty = Bed::new(0).await;
    for _ in 0..2 {
        let found = empty.cache().get(&empty.object).await.unwrap();
        assert!(found.bytes().await.unwrap().is_empty());
    }
    assert_eq!(empty.asked(), [0, 0]);
}

#[tokio::test]
async fn a_whole_get_asks_only_for_the_blocks_that_are_missing() {
    let bed = Bed::new(4 * B + 7).await;
    let cache = bed.cache();
    bed.reads(&cache, 0..1).await;
    bed.reads(&cache, 2 * B..2 * B + 1).await;
    drop(bed.asked());
    assert!(cache.get(&bed.object).await.unwrap().bytes().await.unwrap() == bed.bytes);
    assert_eq!(bed.asked(), [B, B + 7]);
}

#[tokio::test]
async fn errors_are_those_of_the_store() {
    let bed = Bed::new(B + 10).await;
    let (cache, nowhere) = (bed.cache(), Path::from("kept/none"));
    for _ in 0..2 {
        for range in [B + 10..B + 20, 9 * B..9 * B + 1, 5..5] {
            let found = cache.get_range(&bed.object, range.clone()).await.unwrap_err();
            let plain = bed.inner.get_range(&bed.object, range.clone()).await.unwrap_err();
            assert_eq!(found.to_string(), plain.to_string());
            let ranges = [0..1, range];
            let found = cache.get_ranges(&bed.object, &ranges).await;
            let plain = bed.inner.get_ranges(&bed.object, &ranges).await;
            assert_eq!(found.map_err(|e| e.to_string()), plain.map_err(|e| e.to_string()));
        }
        // A range that only ends beyond the end is cut.
        for range in [B..B + 20, 0..9 * B] {
            let found = cache.get_range(&bed.object, range.clone()).await.unwrap();
            assert!(found == bed.slice(range.start..B + 10), "{range:?}");
        }
        assert!(matches!(cache.get(&nowhere).await, Err(Error::NotFound { .. })));
        assert!(matches!(cache.get_range(&nowhere, 0..1).await, Err(Error::NotFound { .. })));
        assert!(matches!(
            cache.get_ranges(&nowhere, &[0..1, 3..4]).await,
            Err(Error::NotFound { .. })
        ));
    }
}

#[tokio::test]
async fn all_else_passes_through() {
    let bed = Bed::new(100).await;
    let cache = bed.cache();
    let other = Path::from("other/one");
    let e_tag = cache.head(&bed.object).await.unwrap().e_tag;
    let condition = GetOptions { if_none_match: e_tag, ..Default::default() };
    let suffix = GetOptions { range: Some(GetRange::Suffix(5)), ..Default::default() };
    for _ in 0..2 {
        drop(bed.inner.take());
        assert!(cache.get(&other).await.unwrap().bytes().await.unwrap() == bed.bytes);
        assert_eq!(cache.get_range(&other, 0..5).await.unwrap(), bed.slice(0..5));
        cache.head(&bed.object).await.unwrap();
        let conditional = cache.get_opts(&bed.object, condition.clone()).await;
        assert!(matches!(conditional, Err(Error::NotModified { .. })));
        let tail = cache.get_opts(&bed.object, suffix.clone()).await.unwrap();
        assert_eq!(tail.bytes().await.unwrap(), bed.slice(95..100));
        let operations: Vec<Operation> =
            bed.inner.take().iter().map(|request| request.operation).collect();
        let get = Operation::Get;
        assert_eq!(operations, [get, get, Operation::Head, get, get]);
    }
    assert!(bed.files().is_empty());
    assert_eq!(cache.statistics(), ReadCacheStatistics::default());
}

#[tokio::test]
async fn a_delete_drops_what_is_kept_of_the_object() {
    let bed = Bed::new(3 * B).await;
    let cache = bed.cache();
    bed.reads(&cache, 0..3 * B).await;
    assert_eq!(bed.files().len(), 3);
    cache.delete(&bed.object).await.unwrap();
    assert!(bed.files().is_empty());
    assert!(matches!(cache.get_range(&bed.object, 0..1).await, Err(Error::NotFound { .. })));
}

fn bytes_in(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[tokio::test]
async fn the_least_recently_read_goes_when_the_budget_is_reached() {
    let bed = Bed::new(20 * B).await;
    // Room for five blocks with their headers.
    let room = 5 * (B + 4096);
    let cache = bed.cache_at(bed.directory.path(), room);
    for number in 0..20 {
        bed.reads(&cache, number * B..number * B + 1).await;
        bed.reads(&cache, 0..1).await;
        assert!(bytes_in(&bed.files()) <= room);
    }
    assert_eq!(bed.files().len(), 5);
    drop(bed.asked());
    bed.reads(&cache, 0..1).await;
    bed.reads(&cache, 16 * B..20 * B).await;
    assert!(bed.asked().is_empty());
    bed.reads(&cache, B..B + 1).await;
    assert_eq!(bed.asked(), [B]);
    // Another handle takes over what is there, and a smaller budget is kept at its first write.
    let small = bed.cache_at(bed.directory.path(), 2 * (B + 4096));
    bed.reads(&small, 9 * B..9 * B + 1).await;
    assert_eq!(bed.files().len(), 2);
    // A budget that holds no block.
    let none = bed.cache_at(bed.directory.path(), 1000);
    bed.reads(&none, 3 * B..4 * B).await;
    assert!(bed.files().is_empty());
}

#[tokio::test]
async fn handles_on_one_directory_keep_its_budget_together() {
    let bed = Bed::new(64 * B).await;
    let room = 16 * (B + 4096);
    let caches = [0; 2].map(|_| bed.cache_at(bed.directory.path(), room));
    for number in 0..64 {
        for cache in &caches {
            bed.reads(cache, number * B..number * B + 1).await;
        }
        // What the other has written since the directory was looked through is not known yet.
        assert!(bytes_in(&bed.files()) <= room + room / 4);
    }
}

#[tokio::test]
async fn damaged_and_deleted_files_are_fetched_anew() {
    let bed = Bed::new(3 * B + 5).await;
    let cache = bed.cache();
    bed.reads(&cache, 0..3 * B + 5).await;
    let files = bed.files();
    assert_eq!(files.len(), 4);
    let whole = fs::read(&files[1]).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let longer = [whole.as_slice(), &[0]].concat();
    let damages: [Option<&[u8]>; 5] =
        [None, Some(&[]), Some(&whole[..whole.len() - 1]), Some(&flipped), Some(&longer)];
    for damage in damages {
        match damage {
            None => fs::remove_file(&files[1]).unwrap(),
            Some(bytes) => fs::write(&files[1], bytes).unwrap(),
        }
        drop(bed.asked());
        bed.reads(&cache, 0..3 * B + 5).await;
        assert_eq!(bed.asked().len(), 1, "fetched anew");
        bed.reads(&cache, 0..3 * B + 5).await;
        assert!(bed.asked().is_empty(), "and kept");
    }
    // A block of another object under this one's name.
    fs::copy(&files[0], &files[1]).unwrap();
    bed.reads(&cache, 0..3 * B + 5).await;
}

#[tokio::test]
async fn the_directory_may_vanish_while_it_is_used() {
    let bed = Bed::new(3 * B).await;
    let place = bed.directory.path().join("a").join("b");
    let cache = bed.cache_at(&place, ROOM);
    for _ in 0..3 {
        bed.reads(&cache, 0..3 * B).await;
        assert_eq!(bed.asked(), [3 * B]);
        bed.reads(&cache, 0..3 * B).await;
        assert!(bed.asked().is_empty());
        fs::remove_dir_all(&place).unwrap();
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_costs_requests_only() {
    let bed = Bed::new(2 * B).await;
    // A file is in the way, which stops root too.
    let file = bed.directory.path().join("file");
    fs::write(&file, "").unwrap();
    let in_the_way = bed.cache_at(&file, ROOM);
    let below = bed.cache_at(&file.join("below"), ROOM);
    for cache in [in_the_way, below] {
        for _ in 0..2 {
            bed.reads(&cache, 0..2 * B).await;
            assert_eq!(bed.asked(), [2 * B]);
        }
        assert_eq!(cache.statistics().bytes_stored, 0);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_directory_is_still_read() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new(2 * B).await;
    bed.reads(&bed.cache(), 0..1).await;
    let folder = bed.files()[0].parent().unwrap().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let cache = bed.cache();
    drop(bed.asked());
    for _ in 0..2 {
        bed.reads(&cache, 0..2 * B).await;
    }
    // Whoever may write everywhere has kept the second block.
    let asked = bed.asked();
    assert!(asked == [B] || asked == [B, B], "{asked:?}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_look_into_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new(1).await;
    let place = bed.directory.path().join("made");
    bed.reads(&bed.cache_at(&place, ROOM), 0..1).await;
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_is_not_the_caches_is_left_alone() {
    let bed = Bed::new(3 * B).await;
    let mine = bed.directory.path().join("a diary.txt");
    fs::write(&mine, [0; 300_000]).unwrap();
    let cache = bed.cache_at(bed.directory.path(), B + 4096);
    bed.reads(&cache, 0..3 * B).await;
    assert_eq!(bed.files().len(), 2);
    assert!(mine.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_one_block_at_once_share_a_request() {
    let bed = Bed::new(10 * B).await;
    let config =
        ThrottleConfig { wait_get_per_call: Duration::from_millis(20), ..Default::default() };
    let slow: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(bed.inner.clone(), config));
    let cache = bed.cache_of(Arc::clone(&slow), bed.directory.path(), ROOM);
    let reads = (0..20).map(|n| bed.reads(&cache, n % 3..4 * B + n + 1));
    futures::future::join_all(reads).await;
    assert_eq!(bed.asked(), [5 * B]);
    // Whole gets too, and where nothing can be kept.
    let nowhere = bed.directory.path().join("file");
    fs::write(&nowhere, "").unwrap();
    let caches = [bed.directory.path().join("fresh"), nowhere];
    for (directory, most) in caches.iter().zip([1, 20]) {
        let cache = bed.cache_of(Arc::clone(&slow), directory, ROOM);
        let reads = (0..20).map(|_| async {
            let found = cache.get(&bed.object).await.unwrap();
            assert!(found.bytes().await.unwrap() == bed.bytes);
        });
        futures::future::join_all(reads).await;
        let asked = bed.asked();
        assert!(asked.len() <= most, "{asked:?}");
    }
}

/// Readers must not wait for one whose future is not polled any more, or was dropped.
#[tokio::test]
async fn a_reader_that_gives_up_holds_up_nobody() {
    let bed = Bed::new(2 * B).await;
    let config =
        ThrottleConfig { wait_get_per_call: Duration::from_millis(20), ..Default::default() };
    let slow: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(bed.inner.clone(), config));
    let cache = bed.cache_of(slow, bed.directory.path(), ROOM);
    let mut idle = Box::pin(cache.get_range(&bed.object, 0..1));
    let mut dropped = Box::pin(cache.get(&bed.object));
    for _ in 0..3 {
        assert!(futures::poll!(&mut idle).is_pending());
        assert!(futures::poll!(&mut dropped).is_pending());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(dropped);
    bed.reads(&cache, 0..2 * B).await;
    assert_eq!(idle.await.unwrap(), bed.slice(0..1));
}

#[tokio::test]
async fn objects_that_change_in_spite_of_their_names_are_not_mixed() {
    let bed = Bed::new(2 * B).await;
    let cache = bed.cache();
    bed.reads(&cache, 0..1).await;
    let changed: Bytes = vec![9; 2 * 65_536].into();
    bed.inner.put(&bed.object, changed.clone().into()).await.unwrap();
    let found = cache.get_range(&bed.object, 0..2 * B).await.unwrap();
    assert!(found == changed);
}

/// One step of a property run.
#[derive(Debug, Clone)]
enum Step {
    Read(Range<u64>),
    ReadMany(Vec<Range<u64>>),
    ReadWhole,
    Flip(prop::sample::Index, prop::sample::Index),
    Truncate(prop::sample::Index, prop::sample::Index),
    Delete(prop::sample::Index),
    Reopen,
}

fn steps(size: u64) -> impl Strategy<Value = Vec<Step>> {
    let range = move || {
        let lengths = prop_oneof![1..100_u64, 1..4 * B];
        (0..size, lengths).prop_map(move |(start, length)| start..(start + length).min(size))
    };
    let step = prop_oneof![
        8 => range().prop_map(Step::Read),
        4 => prop::collection::vec(range(), 1..5).prop_map(Step::ReadMany),
        1 => Just(Step::ReadWhole),
        2 => any::<(prop::sample::Index, prop::sample::Index)>()
            .prop_map(|(file, at)| Step::Flip(file, at)),
        1 => any::<(prop::sample::Index, prop::sample::Index)>()
            .prop_map(|(file, at)| Step::Truncate(file, at)),
        1 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

async fn replay(steps: Vec<Step>, size: u64) {
    let bed = Bed::new(size).await;
    // Few of the object's blocks fit.
    let room = 6 * (B + 4096);
    let mut cache = bed.cache_at(bed.directory.path(), room);
    for step in steps {
        let files = bed.files();
        match step {
            Step::Read(range) => bed.reads(&cache, range).await,
            Step::ReadMany(ranges) => {
                let found = cache.get_ranges(&bed.object, &ranges).await.unwrap();
                for (found, range) in found.iter().zip(ranges) {
                    assert!(*found == bed.slice(range.clone()), "{range:?}");
                }
            }
            Step::ReadWhole => {
                let found = cache.get(&bed.object).await.unwrap().bytes().await.unwrap();
                assert!(found == bed.bytes);
            }
            Step::Reopen => cache = bed.cache_at(bed.directory.path(), room),
            Step::Flip(..) | Step::Truncate(..) | Step::Delete(_) if files.is_empty() => {}
            Step::Flip(file, at) => {
                let file = file.get(&files);
                let mut bytes = fs::read(file).unwrap();
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1;
                }
                fs::write(file, bytes).unwrap();
            }
            Step::Truncate(file, at) => {
                let file = file.get(&files);
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..at.index(bytes.len() + 1)]).unwrap();
            }
            Step::Delete(file) => fs::remove_file(file.get(&files)).unwrap(),
        }
        assert!(bytes_in(&bed.files()) <= room);
    }
}

#[test]
fn random_reads_yield_the_objects_bytes_whatever_happens_to_the_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config {
        cases: 48,
        rng_seed: RngSeed::Fixed(0x71DE_1065),
        failure_persistence: None,
        ..Config::default()
    };
    let size = 12 * B + 777;
    let outcome = TestRunner::new(config).run(&steps(size), |steps| {
        runtime.block_on(replay(steps, size));
        Ok(())
    });
    outcome.unwrap();
}
