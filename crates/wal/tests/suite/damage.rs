//! Every byte of a log of several segments cut, zeroed, replaced and flipped.
//!
//! What is expected is said exactly, from the layout of the log that is damaged: which records come
//! back, or that the log refuses to open.

use std::sync::OnceLock;
use std::time::Instant;

use tidelog_core::ErrorKind;
use tidelog_testkit::SimFileSystem;
use tidelog_wal::{Error, Tail, Wal, inspect, read};

use crate::support::{Rows, bytes_of, open, payload_of, root, rows, segment, shared};

const SEGMENT_BYTES: u64 = 8 * 1024;
const LOG_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 80;

/// A log, and where everything in it lies.
struct Log {
    id_file: Vec<u8>,
    /// Segments, oldest first.
    files: Vec<Vec<u8>>,
    records: Rows,
    /// Of each record: the index of its segment, and where its frame ends there.
    ends: Vec<(usize, usize)>,
    /// The first record of the group that was synced last.
    last_group: u64,
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(make_log)
}

fn make_log() -> Log {
    let fs = SimFileSystem::new();
    let mut wal = open(&fs, SEGMENT_BYTES).unwrap();
    let mut records = Vec::new();
    let mut last_group = 0;
    let mut group = 0_usize;
    while usize::try_from(wal.bytes()).unwrap() < LOG_BYTES {
        group += 1;
        let lengths = (0..=group % 4).map(|i| (group * 37 + i * 211) % 700);
        let batch: Vec<_> = lengths.map(|length| (tag(group), length)).collect();
        let payloads: Vec<_> = batch.iter().map(|(tag, len)| payload_of(*tag, *len)).collect();
        let appended = wal.append(&payloads).unwrap();
        last_group = appended.first_seq;
        let bytes = batch.iter().map(|(tag, length)| bytes_of(*tag, *length));
        records.extend((appended.first_seq..).zip(bytes));
        wal.sync().unwrap();
    }
    let files: Vec<Vec<u8>> =
        (1..=wal.segment_count() as u64).map(|n| fs.file(&segment(n)).unwrap()).collect();
    let id_file = fs.file(&root().join("wal.id")).unwrap();
    let ends = frame_ends(&files, &records);
    Log { id_file, files, records, ends, last_group }
}

fn tag(group: usize) -> u64 {
    group as u64
}

fn frame_ends(files: &[Vec<u8>], records: &Rows) -> Vec<(usize, usize)> {
    let (mut file, mut offset) = (0, HEADER_BYTES);
    let mut ends = Vec::new();
    for (_, bytes) in records {
        if offset == files[file].len() {
            (file, offset) = (file + 1, HEADER_BYTES);
        }
        offset += 64 + bytes.len();
        ends.push((file, offset));
    }
    ends
}

impl Log {
    /// The log with `files` for its own from the segment before `first` on, as if older ones had been
    /// released: they would only be read once more.
    fn place(&self, first: usize, files: Vec<Vec<u8>>) -> SimFileSystem {
        let fs = SimFileSystem::new();
        let empty = root();
        tidelog_storage::FileSystem::create_dir(&fs, empty).unwrap();
        fs.put_file(&root().join("wal.id"), self.id_file.clone());
        for (index, file) in files.into_iter().enumerate() {
            fs.put_file(&segment((first + index) as u64 + 1), file);
        }
        fs
    }

    fn first_record_in(&self, file: usize) -> usize {
        self.ends.iter().position(|(at, _)| *at == file).unwrap()
    }

    /// How many records end before byte `offset` of the segment with index `file`.
    fn records_before(&self, file: usize, offset: usize) -> usize {
        self.ends.iter().filter(|end| **end <= (file, offset)).count()
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let lengths = self.files.iter().map(Vec::len).enumerate();
        lengths.flat_map(|(file, length)| (0..length).map(move |offset| (file, offset)))
    }
}

/// Whether the log opens with just the records from the one with index `first` to before `until`,
/// and goes on after them.
fn assert_prefix(fs: &SimFileSystem, first: usize, until: usize, what: &str) {
    let log = log();
    let mut wal = open(fs, SEGMENT_BYTES).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(rows(&wal).unwrap() == log.records[first..until], "{what}: other records");
    assert_eq!(wal.next_seq(), until as u64 + 1, "{what}");
    wal.append(&[payload_of(0, 9)]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let wal = open(fs, SEGMENT_BYTES).unwrap();
    let last = wal.records(until as u64).last().unwrap().unwrap();
    assert_eq!((last.seq, last.payload.to_vec()), (until as u64 + 1, bytes_of(0, 9)), "{what}");
}

fn assert_damaged(fs: &SimFileSystem, what: &str) {
    let before = fs.files();
    match open(fs, SEGMENT_BYTES) {
        Err(Error::Damaged(_)) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: opened"),
    }
    assert!(fs.files() == before, "{what}: a refused log was changed");
}

/// Damages each byte and everything after it, in that segment and the later ones, and checks.
fn ruin_tails(name: &str, keep_later: bool, ruin: impl Fn(&mut Vec<u8>, usize)) {
    let log = log();
    let (started, mut cases) = (Instant::now(), 0);
    for (file, offset) in log.places() {
        let what = format!("{name} from byte {offset} of segment {}", file + 1);
        let first = file.saturating_sub(1);
        let until = if keep_later { log.files.len() } else { file + 1 };
        let mut files = log.files[first..until].to_vec();
        ruin(&mut files[file - first], offset);
        files.iter_mut().skip(file - first + 1).for_each(|later| ruin(later, 0));
        let fs = log.place(first, files);
        let is_last = file + 1 == until;
        if (file == 0 && offset < HEADER_BYTES) || !is_last {
            assert_damaged(&fs, &what);
        } else {
            assert_prefix(&fs, log.first_record_in(first), log.records_before(file, offset), &what);
        }
        cases += 1;
    }
    println!("{name}: {cases} cases in {:?}", started.elapsed());
    assert!(cases >= LOG_BYTES);
}

#[test]
fn a_log_cut_at_any_byte_keeps_its_whole_records() {
    ruin_tails("cut", false, Vec::truncate);
}

#[test]
fn a_log_of_zeros_from_any_byte_on_keeps_its_whole_records_or_is_refused() {
    ruin_tails("zeros", true, |bytes, from| bytes[from..].fill(0));
}

#[test]
fn a_log_of_garbage_from_any_byte_on_keeps_its_whole_records_or_is_refused() {
    ruin_tails("garbage", true, |bytes, from| {
        let garbage = bytes_of(from as u64 + 1_000_000, bytes.len() - from);
        bytes[from..].iter_mut().zip(garbage).for_each(|(byte, other)| *byte ^= other | 1);
    });
}

#[test]
fn a_flipped_bit_in_any_byte_is_found() {
    let log = log();
    let (started, mut cases) = (Instant::now(), 0);
    for (file, offset) in log.places() {
        let first = file.saturating_sub(1);
        let mut files = log.files[first..].to_vec();
        files[file - first][offset] ^= 1 << (offset * 5 % 8);
        let fs = log.place(first, files);
        let what = format!("a bit of byte {offset} of segment {}", file + 1);
        let hit = log.records_before(file, offset);
        let seq = hit as u64 + 1;
        if offset >= HEADER_BYTES && seq >= log.last_group {
            assert_prefix(&fs, log.first_record_in(first), hit, &what);
        } else {
            assert_damaged(&fs, &what);
        }
        cases += 1;
    }
    println!("flips: {cases} cases in {:?}", started.elapsed());
    assert!(cases >= LOG_BYTES);
}

#[test]
fn every_bit_of_the_id_is_checked() {
    let log = log();
    for bit in 0..log.id_file.len() * 8 {
        let fs = log.place(0, log.files.clone());
        let mut id = log.id_file.clone();
        id[bit / 8] ^= 1 << (bit % 8);
        fs.put_file(&root().join("wal.id"), id);
        assert_damaged(&fs, &format!("bit {bit} of the id"));
    }
    let fs = log.place(0, log.files.clone());
    fs.take_file(&root().join("wal.id"));
    assert_damaged(&fs, "no id");
}

#[test]
fn a_segment_that_is_missing_swapped_or_of_another_log_is_damage() {
    let log = log();
    for missing in 1..log.files.len() - 1 {
        let fs = log.place(0, log.files.clone());
        fs.take_file(&segment(missing as u64 + 1));
        assert_damaged(&fs, &format!("segment {} missing", missing + 1));
        let Tail::Damaged(damage) = inspect(&fs, root()).unwrap().tail else { panic!() };
        assert_eq!((damage.file, damage.offset), (segment(missing as u64 + 1), 0));
        assert_eq!(damage.seq, log.first_record_in(missing) as u64 + 1);
        let behind = log.records.len() - log.first_record_in(missing + 1);
        assert_eq!((damage.records_behind, damage.seq_behind), {
            (behind as u64, log.records.len() as u64)
        });
    }
    for left in 0..log.files.len() - 1 {
        let mut files = log.files.clone();
        files.swap(left, left + 1);
        assert_damaged(&log.place(0, files), &format!("segments {left} swapped"));
        // The same content twice.
        let mut files = log.files.clone();
        files[left + 1] = files[left].clone();
        assert_damaged(&log.place(0, files), &format!("segment {left} twice"));
    }
    let other = SimFileSystem::new();
    let options = tidelog_wal::WalOptions::default();
    let env = tidelog_core::Env::default();
    let mut stranger = Wal::open(shared(&other), root(), &env, options).unwrap();
    stranger.append(&[payload_of(1, 5)]).unwrap();
    stranger.sync().unwrap();
    let next = log.files.len() as u64 + 1;
    let fs = log.place(0, log.files.clone());
    fs.put_file(&segment(next), other.file(&segment(1)).unwrap());
    assert_damaged(&fs, "a segment of another log");
    let refused = read(shared(&fs), root()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption);
    assert!(refused.to_string().contains("a segment of the log"), "{refused}");
}

#[test]
fn a_frame_that_is_there_twice_ends_the_prefix() {
    let log = log();
    let last = log.files.len() - 1;
    let mut files = log.files.clone();
    let (_, end) = log.ends[log.records.len() - 2];
    let twice = files[last][end..].to_vec();
    files[last].extend(twice);
    assert_prefix(&log.place(0, files), 0, log.records.len(), "the last frame twice");
}

#[test]
fn a_frame_of_another_history_of_the_log_ends_the_prefix() {
    let fs = SimFileSystem::new();
    open(&fs, SEGMENT_BYTES).unwrap();
    let histories = [1_u64, 100].map(|tag| {
        let fs = fs.fork();
        let mut wal = open(&fs, SEGMENT_BYTES).unwrap();
        wal.append(&[payload_of(tag, 50)]).unwrap();
        wal.append(&[payload_of(tag + 1, 50)]).unwrap();
        fs.file(&segment(1)).unwrap()
    });
    let [mut ours, theirs] = histories;
    let second = HEADER_BYTES + 64 + 50;
    ours[second..].copy_from_slice(&theirs[second..]);
    fs.put_file(&segment(1), ours);
    assert_eq!(rows(&open(&fs, SEGMENT_BYTES).unwrap()).unwrap(), [(1, bytes_of(1, 50))]);
}

#[test]
fn a_header_that_is_lost_before_the_only_group_of_the_last_segment_is_damage() {
    let fs = SimFileSystem::new();
    let mut wal = open(&fs, 1).unwrap();
    for tag in 0..2 {
        wal.append(&[payload_of(tag, 50)]).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    for byte in 0..HEADER_BYTES {
        let fs = fs.fork();
        let mut bytes = fs.file(&segment(2)).unwrap();
        bytes[byte] ^= 1;
        fs.put_file(&segment(2), bytes);
        assert_damaged(&fs, &format!("byte {byte} of the header"));
    }
}

#[test]
fn an_older_segment_that_a_release_left_behind_is_no_damage() {
    let log = log();
    for first in 0..log.files.len() {
        let fs = log.place(first, log.files[first..].to_vec());
        assert_prefix(&fs, log.first_record_in(first), log.records.len(), "released");
    }
}

#[test]
fn bad_lengths_take_no_memory() {
    let log = log();
    let last = log.files.len() - 1;
    let mut files = log.files.clone();
    // Headers that claim payloads of 4 GiB, as far as the eye can see.
    let mut claim = b"TLWF\x01\0\0\0\xff\xff\xff\xff".to_vec();
    claim.extend([0xff; 20]);
    files[last].extend(claim.iter().cycle().take(3 << 20));
    let fs = log.place(0, files);
    assert_prefix(&fs, 0, log.records.len(), "claims");
    assert!(fs.largest_read() <= 256 * 1024, "{}", fs.largest_read());
}
