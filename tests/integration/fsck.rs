//! A check finds every damage and names it, and finds none where there is none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::object_store::memory::InMemory;
use tidelog::object_store::path::Path;
use tidelog::object_store::{ObjectStore, ObjectStoreExt};
use tidelog::{
    ErrorKind, Finding, FsckOptions, FsckReport, SeriesAppend, SeriesExt, Store, StoreBuilder,
    UpkeepMode, Version,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store in memory and what was done to it.
struct Fixture {
    objects: Arc<InMemory>,
    store: Store,
    appends: i64,
    seed: u64,
}

impl Fixture {
    async fn new(seed: u64, retention: Duration) -> Result<Self> {
        let objects = Arc::new(InMemory::new());
        let store = builder(&objects).with_log_retention(retention).create().await?;
        Ok(Self { objects, store, appends: 0, seed })
    }

    fn random(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator: the test needs any sequence that a seed fixes.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below.max(1)
    }

    async fn append(&mut self, path: &str, rows: i64) -> Result<()> {
        self.appends += 1;
        let batch = batch(self.appends * 1000, rows)?;
        self.store.root().append_series_data(path, &batch, None).await?;
        Ok(())
    }

    /// Several versions of several series, some sharing a file.
    async fn append_many(&mut self, versions: i64) -> Result<()> {
        let mut appends = Vec::new();
        for i in 0..versions {
            self.appends += 1;
            let path = format!("/many/{}.series", i % 2);
            appends.push(SeriesAppend::new(path, batch(self.appends * 1000, 1 + i % 5)?));
        }
        for result in self.store.root().append_many(appends).await? {
            result?;
        }
        Ok(())
    }

    async fn fsck(&self, deep: bool) -> Result<FsckReport> {
        Ok(builder(&self.objects).fsck(deep).await?)
    }

    /// A log with runs, checkpoints, parts that were merged away, and a tail of single commits.
    async fn worn(retention: Duration) -> Result<Self> {
        let mut fixture = Self::new(7, retention).await?;
        for round in 0..3 {
            for i in 0..12 {
                fixture.append(&format!("/s/{}.series", i % 3), 1 + i % 4).await?;
            }
            fixture.append_many(7).await?;
            fixture.store.maintain(round == 1).await?;
        }
        fixture.store.rename("/s/0.series", "/moved/0.series").await?;
        fixture.store.remove("/s/1.series", false).await?;
        for path in ["/s/2.series", "/moved/0.series", "/new.series"] {
            fixture.append(path, 3).await?;
        }
        fixture.append_many(4).await?;
        Ok(fixture)
    }

    async fn image(&self) -> Result<BTreeMap<String, Bytes>> {
        let listed: Vec<_> = self.objects.list(None).try_collect().await?;
        let mut image = BTreeMap::new();
        for meta in listed {
            let bytes = self.objects.get(&meta.location).await?.bytes().await?;
            image.insert(meta.location.to_string(), bytes);
        }
        Ok(image)
    }

    async fn put(&self, object: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.objects.put(&Path::from(object), bytes.into().into()).await?;
        Ok(())
    }
}

fn builder(objects: &Arc<InMemory>) -> StoreBuilder {
    let objects: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(objects);
    Store::builder("memory://").with_object_store(objects).with_upkeep(UpkeepMode::OnRequest)
}

fn batch(start: i64, rows: i64) -> Result<RecordBatch> {
    let times = TimestampMicrosecondArray::from_iter_values(start..start + rows);
    let values = Float64Array::from_iter_values((0..rows).map(|i| i as f64));
    let columns: [(&str, ArrayRef); 2] = [("time", Arc::new(times)), ("v", Arc::new(values))];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn lines(report: &FsckReport) -> String {
    report.damage.iter().map(|finding| format!("{finding}\n")).collect()
}

fn names(report: &FsckReport, object: &str) -> bool {
    report.damage.iter().any(|finding| finding.object.as_deref() == Some(object))
}

fn about<'a>(report: &'a FsckReport, object: &str) -> Result<&'a Finding> {
    let mut damage = report.damage.iter();
    let found = damage.find(|finding| finding.object.as_deref() == Some(object));
    found.with_context(|| format!("{object} is not named in:\n{}", lines(report)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intact_store_has_no_damage_whatever_was_done_to_it() -> Result<()> {
    for (seed, retention) in [(1, DAY), (2, DAY), (3, Duration::ZERO), (4, Duration::ZERO)] {
        let mut fixture = Fixture::new(seed, retention).await?;
        for step in 0..90 {
            let (series, rows) = (fixture.random(4), i64::try_from(fixture.random(9))?);
            let path = format!("/s/{series}.series");
            match fixture.random(14) {
                0 => {
                    fixture.store.maintain(false).await?;
                }
                1 if series == 0 => {
                    fixture.store.maintain(true).await?;
                }
                2 => drop(fixture.store.rename(&path, &format!("/t/{step}.series")).await),
                3 => drop(fixture.store.remove(&path, false).await),
                4 => fixture.append_many(1 + rows).await?,
                _ => fixture.append(&path, 1 + rows).await?,
            }
            if step % 6 == 0 || step > 84 {
                let report = fixture.fsck(step % 4 == 0).await?;
                ensure!(report.is_intact(), "seed {seed}, step {step}:\n{}", lines(&report));
                ensure!(report.orphan_count == 0, "{:?}", report.orphans);
            }
        }
        let (report, counts) = (fixture.fsck(true).await?, fixture.store.statistics().await?);
        ensure!(report.files >= counts.files && report.versions >= counts.versions);
        ensure!(report.bytes >= counts.bytes && report.checkpoints > 0 && report.parts > 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writers_and_upkeep_do_meanwhile_is_no_damage() -> Result<()> {
    for retention in [DAY, Duration::ZERO] {
        let mut fixture = Fixture::new(1, retention).await?;
        fixture.append("/a.series", 1).await?;
        let objects = Arc::clone(&fixture.objects);
        let writer = tokio::spawn(async move {
            for i in 0..120 {
                fixture.append(&format!("/s/{}.series", i % 5), 1 + i % 7).await?;
                if i % 10 == 9 {
                    fixture.store.maintain(i % 40 == 39).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        let mut checks = 0;
        while !writer.is_finished() {
            match builder(&objects).fsck(checks % 2 == 0).await {
                Ok(report) => ensure!(report.is_intact(), "{}", lines(&report)),
                // Without a retention, what is being checked may be let go at any time.
                Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}"),
            }
            checks += 1;
        }
        writer.await??;
        ensure!(checks > 3, "{checks} checks");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_the_store_and_progress_reaches_the_end() -> Result<()> {
    let mut fixture = Fixture::new(5, DAY).await?;
    fixture.append("/a.series", 4).await?;
    fixture.append("/b.series", 4).await?;
    fixture.store.root().create_series("/empty.series", Default::default()).await?;
    let last = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&last);
    let options = FsckOptions::default().with_progress(move |done| {
        *seen.lock().expect("no panic") = Some(*done);
    });
    let report = builder(&fixture.objects).fsck_with_options(&options).await?;
    let counts = fixture.store.statistics().await?;
    assert_eq!((report.series, report.versions, report.files), (3, 2, 2));
    assert_eq!((report.commits, report.bytes), (counts.commits, counts.bytes));
    let done = last.lock().expect("no panic").context("progress")?;
    assert_eq!((done.parts, done.parts_done), (report.parts, report.parts));
    assert_eq!((done.files_done, done.bytes_done), (report.files, report.bytes));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_object_that_is_lost_cut_or_overwritten_is_found_and_named() -> Result<()> {
    let fixture = Fixture::worn(DAY).await?;
    let intact = fixture.fsck(true).await?;
    ensure!(intact.is_intact(), "{}", lines(&intact));
    ensure!(intact.replaced_parts > 5 && intact.checkpoints > 2 && intact.parts > 5);
    let image = fixture.image().await?;
    let newest = image.keys().rfind(|name| name.ends_with(".json")).context("a commit")?.clone();
    let mut unseen = 0;
    for (object, bytes) in &image {
        if object.ends_with("upkeep-clock") {
            continue;
        }
        let middle = bytes.len() / 2;
        let mut overwritten = bytes.to_vec();
        for byte in overwritten.iter_mut().skip(middle).take(64) {
            *byte ^= 0x95;
        }
        for (what, found) in [
            ("lost", None),
            ("empty", Some(Bytes::new())),
            ("cut", Some(bytes.slice(..middle))),
            ("overwritten", Some(Bytes::from(overwritten))),
        ] {
            match found {
                Some(found) => fixture.put(object, found).await?,
                None => fixture.objects.delete(&Path::from(object.as_str())).await?,
            }
            let report = fixture.fsck(true).await?;
            if what == "lost" && *object == newest {
                // Nothing in the log tells that it was there, but its part and files are.
                ensure!(report.orphan_count > 1, "{object} {what}");
            } else if what == "lost" && is_older_checkpoint(object, &image) {
                // Nothing needs it, and nothing tells that it was there.
                ensure!(report.is_intact(), "{object} {what}:\n{}", lines(&report));
            } else if !names(&report, object) {
                ensure!(object.contains("/part-"), "{object} {what}:\n{}", lines(&report));
                ensure!(report.is_intact(), "{object} {what}:\n{}", lines(&report));
                unseen += 1;
            }
            fixture.put(object, bytes.clone()).await?;
        }
    }
    // Those are the parts that are live no more.
    assert_eq!(unseen, 4 * intact.replaced_parts);
    let report = fixture.fsck(true).await?;
    ensure!(report.is_intact(), "{}", lines(&report));
    Ok(())
}

fn is_older_checkpoint(object: &str, image: &BTreeMap<String, Bytes>) -> bool {
    const SUFFIX: &str = ".checkpoint.parquet";
    let newest = image.keys().rfind(|name| name.ends_with(SUFFIX));
    object.ends_with(SUFFIX) && newest.is_some_and(|newest| newest != object)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_of_a_data_file_is_found_only_by_reading_it() -> Result<()> {
    let mut fixture = Fixture::new(1, DAY).await?;
    fixture.append("/a.series", 500).await?;
    let image = fixture.image().await?;
    let (object, bytes) = image.iter().find(|(o, _)| o.starts_with("series/")).context("a file")?;
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        fixture.put(object, flipped).await?;
        ensure!(fixture.fsck(false).await?.is_intact());
        let report = fixture.fsck(true).await?;
        let finding = about(&report, object)?;
        assert_eq!((finding.path.as_deref(), finding.rows), (Some("/a.series"), Some(500)));
        assert_eq!(finding.versions, Some((Version::FIRST, Version::FIRST)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_is_checked_to_the_end() -> Result<()> {
    let mut fixture = Fixture::new(1, DAY).await?;
    for _ in 0..6 {
        fixture.append("/a/s.series", 2).await?;
    }
    let image = fixture.image().await?;
    let commits: Vec<_> = image.keys().filter(|name| name.ends_with(".json")).collect();
    let files: Vec<_> = image.keys().filter(|name| name.starts_with("series/")).collect();
    // Version 3, a data file of a version that is not version 3, and half of version 5.
    fixture.objects.delete(&Path::from(commits[3].as_str())).await?;
    fixture.put(commits[5], image[commits[5]].slice(..200)).await?;
    let report = fixture.fsck(false).await?;
    let unnamed: Vec<_> = report.orphans.iter().map(|orphan| orphan.object.as_str()).collect();
    let file = files.iter().find(|file| !unnamed.contains(&file.as_str())).context("a file")?;
    fixture.objects.delete(&Path::from(file.as_str())).await?;
    let opened = builder(&fixture.objects).open().await;
    assert_eq!(opened.err().map(|error| error.kind()), Some(ErrorKind::Corruption));
    let report = fixture.fsck(false).await?;
    for object in [commits[3], commits[5], *file] {
        let finding = about(&report, object)?;
        ensure!(!finding.remedy.is_empty());
    }
    let lost: Vec<_> = report.damage.iter().filter(|f| f.object.is_none()).collect();
    let versions: Vec<_> = lost.iter().filter_map(|finding| finding.versions).collect();
    assert_eq!(versions, [3, 5].map(|v| (Version::new(v), Version::new(v))), "{}", lines(&report));
    ensure!(lost.iter().all(|finding| finding.path.as_deref() == Some("/a/s.series")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_says_of_its_part_is_not_believed() -> Result<()> {
    let mut fixture = Fixture::new(1, DAY).await?;
    fixture.append("/a.series", 2).await?;
    fixture.append("/a.series", 2).await?;
    let commit = "_oplog/_delta_log/00000000000000000002.json";
    let text = String::from_utf8(fixture.image().await?[commit].to_vec())?;
    for (from, to, words) in [
        ("\\\"version\\\":2", "\\\"version\\\":3", "of version"),
        ("\\\"numRecords\\\":2", "\\\"numRecords\\\":3", "it should add 2 rows and adds 3"),
        ("\"file,version\"", "\"tree\"", "does not tell that it has version rows"),
        ("\"size\":", "\"size\":1", "bytes where the log says"),
        ("/a.series", "/b.series", "of path"),
    ] {
        let altered = |line: &str| match line.starts_with("{\"add\"") {
            true => line.replace(from, to),
            false => line.to_owned(),
        };
        let altered: Vec<String> = text.lines().map(altered).collect();
        ensure!(
            altered.concat() != text.lines().collect::<String>(),
            "{from} is in no add: {text}"
        );
        fixture.put(commit, altered.join("\n")).await?;
        let report = fixture.fsck(false).await?;
        ensure!(lines(&report).contains(words), "{words} is not in:\n{}", lines(&report));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_or_newer_is_an_error_and_orphans_are_no_damage() -> Result<()> {
    let empty = Arc::new(InMemory::new());
    let error = builder(&empty).fsck(false).await.err().context("an error")?;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let mut fixture = Fixture::new(1, DAY).await?;
    fixture.append("/a.series", 2).await?;
    fixture.put("_oplog/part-0.parquet", "abc").await?;
    fixture.put("series/x/y.parquet", "abcd").await?;
    let report = fixture.fsck(true).await?;
    ensure!(report.is_intact());
    assert_eq!((report.orphan_count, report.orphan_bytes), (2, 7));
    ensure!(report.orphans.iter().all(|orphan| orphan.age < Duration::from_secs(60)));
    let first = "_oplog/_delta_log/00000000000000000000.json";
    let text = String::from_utf8(fixture.image().await?[first].to_vec())?;
    fixture.put(first, text.replace("\"tidelogFormat\":1", "\"tidelogFormat\":2")).await?;
    let error = builder(&fixture.objects).fsck(true).await.err().context("an error")?;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // All commits gone: what is left is not taken for an empty place.
    for object in fixture.image().await?.keys().filter(|name| name.contains("_delta_log")) {
        fixture.objects.delete(&Path::from(object.as_str())).await?;
    }
    let report = fixture.fsck(false).await?;
    ensure!(names(&report, first) && report.orphan_count > 2, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_was_interrupted_is_no_damage() -> Result<()> {
    let mut fixture = Fixture::new(1, Duration::ZERO).await?;
    let mut before = BTreeMap::new();
    for _ in 0..4 {
        for _ in 0..10 {
            fixture.append("/a.series", 2).await?;
        }
        before = fixture.image().await?;
        fixture.store.maintain(false).await?;
    }
    let after = fixture.image().await?;
    let is_commit = |name: &&String| name.ends_with(".json") && !after.contains_key(*name);
    let deleted: Vec<_> = before.keys().filter(is_commit).collect();
    ensure!(deleted.len() > 4, "{deleted:?}");
    for object in &deleted[deleted.len() / 2..] {
        fixture.put(object, before[*object].clone()).await?;
    }
    let report = fixture.fsck(true).await?;
    ensure!(report.is_intact() && report.notes.len() == 1, "{}", lines(&report));
    // One of them is not what expiry leaves.
    fixture.objects.delete(&Path::from(deleted[deleted.len() - 2].as_str())).await?;
    if fixture.fsck(true).await?.is_intact() {
        bail!("a gap was not found");
    }
    Ok(())
}
