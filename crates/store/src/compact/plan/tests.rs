//! The plan, tried on series that are only numbers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TARGET: u64 = 4_096;

/// A file as bytes at instants.
type Content = BTreeMap<i64, u64>;

#[derive(Debug, Clone, Default)]
struct Series {
    files: Vec<Content>,
    written: u64,
}

fn size(file: &Content) -> u64 {
    file.values().sum()
}

fn facts(file: &Content) -> FileFacts {
    let (first, last) = (file.keys().next().unwrap(), file.keys().next_back().unwrap());
    let range = TimeRange::try_new(*first, *last).unwrap();
    FileFacts { range, bytes: size(file), group_bytes: size(file).min(TARGET / 64), is_busy: false }
}

fn goal(eagerness: Eagerness) -> Goal {
    Goal { target_bytes: TARGET, open_bytes_max: TARGET, eagerness, dedup: false }
}

impl Series {
    fn put(&mut self, file: Content) {
        self.written += size(&file);
        self.files.push(file);
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(size).sum()
    }

    /// Does one job as a rewrite would; whether there was one.
    fn compact(&mut self, eagerness: Eagerness) -> bool {
        let facts: Vec<FileFacts> = self.files.iter().map(facts).collect();
        let Some(job) = next_job(&facts, &goal(eagerness)) else { return false };
        let mut all = Content::new();
        for input in job.inputs.iter().rev() {
            for (time, bytes) in self.files.remove(*input) {
                *all.entry(time).or_default() += bytes;
            }
        }
        let mut cuts = job.cuts.iter().map(|cut| cut.nanos()).peekable();
        let mut open = Content::new();
        for (time, bytes) in all {
            let mut at_cut = false;
            while cuts.next_if(|cut| *cut <= time).is_some() {
                at_cut = true;
            }
            if size(&open) >= job.bytes.div_ceil(job.files)
                || at_cut && size(&open) >= job.cut_bytes_min
            {
                self.put(std::mem::take(&mut open));
            }
            open.insert(time, bytes);
        }
        self.put(open);
        true
    }

    fn settle(&mut self, eagerness: Eagerness) {
        let mut jobs = 0;
        while self.compact(eagerness) {
            jobs += 1;
            assert!(jobs < 2_000, "planning does not come to an end");
        }
    }

    /// Files that lie over an instant, on average.
    fn depth(&self) -> f64 {
        let instants = |file: &FileFacts| file.range.end().nanos() - file.range.start().nanos() + 1;
        let facts: Vec<FileFacts> = self.files.iter().map(facts).collect();
        let whole = facts.iter().map(|file| file.range).reduce(union);
        let whole = whole.map_or(1, |whole| whole.end().nanos() - whole.start().nanos() + 1);
        facts.iter().map(instants).sum::<i64>() as f64 / whole as f64
    }

    fn overlaps(&self) -> usize {
        let mut ranges: Vec<TimeRange> = self.files.iter().map(|file| facts(file).range).collect();
        ranges.sort_by_key(|range| (range.start(), range.end()));
        ranges.windows(2).filter(|pair| pair[1].start() < pair[0].end()).count()
    }
}

fn union(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::try_new(a.start().min(b.start()), a.end().max(b.end())).unwrap()
}

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) * end) >> 31
    }
}

/// Data that comes late: of a third of it by less than an instant, of a third by less than `day`, of a
/// third by any time. A byte comes each instant.
fn ingest(total: u64, flush: u64, day: u64, shares: [u64; 3]) -> (Series, f64) {
    let mut numbers = Numbers(7);
    let mut series = Series::default();
    let (mut depths, mut now, mut flushes) = (0.0, 0, 0.0);
    while now < total {
        let mut file = Content::new();
        for _ in 0..flush {
            now += 1;
            let pick = numbers.below(shares.iter().sum());
            let delay = match pick {
                pick if pick < shares[0] => 0,
                pick if pick < shares[0] + shares[1] => numbers.below(day.min(now)),
                _ => numbers.below(now),
            };
            // An instant is coarse, to be quick.
            *file.entry(((now - delay) / 2 * 2) as i64).or_default() += 1;
        }
        series.put(file);
        series.settle(Eagerness::WhenDue);
        depths += series.depth();
        flushes += 1.0;
    }
    (series, depths / flushes)
}

#[test]
fn rows_that_come_late_are_written_few_times_and_lie_over_few_files() {
    for (flush, day) in [(TARGET / 32, TARGET), (TARGET / 32, 4 * TARGET), (TARGET / 8, TARGET)] {
        let (series, depth) = ingest(20 * TARGET, flush, day, [1, 1, 1]);
        let written = series.written as f64 / series.bytes() as f64;
        assert!(written <= 4.0, "{written} bytes were written for each that is kept");
        assert!(depth <= 8.0, "{depth} files lay over each instant");
    }
}

#[test]
fn rows_in_order_become_large_files_that_are_left_alone() {
    let (mut series, depth) = ingest(20 * TARGET, TARGET / 32, 1, [1, 0, 0]);
    let written = series.written as f64 / series.bytes() as f64;
    assert!(written <= 3.0, "{written} bytes were written for each that is kept");
    assert!(depth <= 1.1, "{depth} files lay over each instant");
    assert!(series.files.len() <= 40, "{} files", series.files.len());
    let before = series.written;
    series.settle(Eagerness::Fully);
    assert!(series.written - before <= 2 * TARGET, "good files were written again");
}

#[test]
fn each_version_a_file_leaves_few_of_them() {
    let (series, _) = ingest(TARGET / 4, 1, 1, [1, 0, 0]);
    assert!(series.files.len() <= 4 * FAN_IN, "{} files", series.files.len());
    let written = series.written as f64 / series.bytes() as f64;
    assert!(written <= 6.0, "{written} bytes were written for each that is kept");
}

fn file(first: i64, last: i64, bytes: u64) -> Content {
    let half = bytes / 2;
    if first == last {
        [(first, bytes)].into()
    } else {
        [(first, half), (last, bytes - half)].into()
    }
}

#[test]
fn beside_a_merge_only_depth_is_cured_and_of_no_file_that_is_busy() {
    let base = [file(0, 1_000, TARGET), file(1_001, 2_000, TARGET)];
    let late = (0..18).map(|n| file(n, 1_900 + n, TARGET / 64));
    let mut files: Vec<FileFacts> = base.iter().cloned().chain(late).map(|f| facts(&f)).collect();
    let deep = next_job(&files, &goal(Eagerness::Depth)).unwrap();
    assert_eq!(deep.inputs, (2..20).collect::<Vec<_>>());
    // Where the pieces are cut does not depend on what else is done.
    files[0].is_busy = true;
    assert_eq!(next_job(&files, &goal(Eagerness::Depth)), Some(deep));
    for busy in &mut files[2..5] {
        busy.is_busy = true;
    }
    assert_eq!(next_job(&files, &goal(Eagerness::Depth)), None, "fifteen are left");
}

#[test]
fn what_is_good_is_not_touched() {
    let good = |n: i64| file(n * 10, n * 10 + 9, TARGET);
    let files: Vec<FileFacts> = (0..20).map(|n| facts(&good(n))).collect();
    for eagerness in [Eagerness::WhenDue, Eagerness::Fully] {
        assert_eq!(next_job(&files, &goal(eagerness)), None);
    }
    // A small late file waits, and is merged with what it lies over and nothing else when asked to.
    let mut late = files;
    late.push(facts(&file(42, 57, TARGET / 16)));
    assert_eq!(next_job(&late, &goal(Eagerness::WhenDue)), None);
    let job = next_job(&late, &goal(Eagerness::Fully)).unwrap();
    assert_eq!(job.inputs, [4, 5, 20]);
    assert_eq!(plan(&late, &goal(Eagerness::Fully)).len(), 1);
}

#[test]
fn depth_is_cured_before_base_files_are_written_anew() {
    let base = (0..4).map(|n| file(n * 10, n * 10 + 9, TARGET));
    let wide = (1..DEPTH_MAX as i64).map(|n| file(1 + n, 37, TARGET / 4));
    let mut files: Vec<FileFacts> = base.chain(wide).map(|file| facts(&file)).collect();
    assert_eq!(next_job(&files, &goal(Eagerness::WhenDue)), None);
    // As many bytes as the base file below them, which is thus due, too.
    files.extend((12..16).map(|first| facts(&file(first, 19, TARGET / 4))));
    let job = next_job(&files, &goal(Eagerness::WhenDue)).unwrap();
    assert!(matches!(job.reason, Reason::Overlapping { .. }), "{job:?}");
    assert!(job.inputs.iter().all(|input| *input >= 4), "{job:?}");
}

#[test]
fn files_that_share_an_instant_are_apart_unless_rows_are_deduplicated() {
    let files = [facts(&file(0, 10, TARGET)), facts(&file(10, 20, TARGET))];
    let fully = goal(Eagerness::Fully);
    assert_eq!(next_job(&files, &fully), None);
    assert!(next_job(&files, &Goal { dedup: true, ..fully }).is_some());
}

#[test]
fn no_more_files_are_open_at_once_than_memory_allows() {
    let files: Vec<FileFacts> = (0..50)
        .map(|n| FileFacts { group_bytes: TARGET / 10, ..facts(&file(n, 1000 + n, TARGET / 10)) })
        .collect();
    let job = next_job(&files, &goal(Eagerness::Fully)).unwrap();
    assert_eq!(job.inputs.len(), 10);
    let tight = Goal { open_bytes_max: 1, ..goal(Eagerness::Fully) };
    assert_eq!(next_job(&files, &tight).unwrap().inputs.len(), 2);
}

fn any_files() -> impl Strategy<Value = Vec<Content>> {
    let any = (0..4_000_i64, prop_oneof![0..4_i64, 0..200_i64, 0..4_000_i64], 1..2 * TARGET);
    let any = any.prop_map(|(first, length, bytes)| file(first, first + length, bytes));
    prop::collection::vec(any, 0..60)
}

proptest! {
    #[test]
    fn plans_share_no_file_and_come_to_an_end(files in any_files(), due: bool) {
        let eagerness = if due { Eagerness::WhenDue } else { Eagerness::Fully };
        let facts: Vec<FileFacts> = files.iter().map(facts).collect();
        let jobs = plan(&facts, &goal(eagerness));
        let mut inputs: Vec<usize> = jobs.iter().flat_map(|job| job.inputs.clone()).collect();
        let count = inputs.len();
        inputs.sort_unstable();
        inputs.dedup();
        prop_assert_eq!(count, inputs.len());
        prop_assert!(inputs.iter().all(|input| *input < files.len()));
        for job in &jobs {
            prop_assert!(job.inputs.len() > 1 && job.inputs.is_sorted());
            prop_assert!(job.bytes <= job.files * TARGET && job.cuts.is_sorted());
        }
        let mut series = Series { files, written: 0 };
        let bytes = series.bytes();
        series.settle(eagerness);
        prop_assert_eq!(series.bytes(), bytes);
        if eagerness == Eagerness::Fully {
            prop_assert_eq!(series.overlaps(), 0);
        }
    }
}
