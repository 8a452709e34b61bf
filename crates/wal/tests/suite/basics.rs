//! A log on the real file system.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_core::{Env, ErrorKind};
use tidelog_storage::{FileSystem, OsFileSystem};
use tidelog_testkit::SimFileSystem;
use tidelog_wal::{Error, Payload, Record, Wal, WalOptions, inspect, is_locked, read};

fn os() -> Arc<dyn FileSystem> {
    Arc::new(OsFileSystem)
}

fn open(directory: &Path, segment_bytes: u64) -> Result<Wal, Error> {
    let options = WalOptions::default().with_segment_bytes(segment_bytes);
    Wal::open(os(), directory, &Env::default(), options)
}

fn payload(text: &str) -> Payload {
    let (head, tail) = text.split_at(text.len() / 2);
    let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Payload::new(vec![part(head), part(tail)])
}

fn texts(records: impl Iterator<Item = Result<Record, Error>>) -> Vec<(u64, String)> {
    let text = |record: Record| (record.seq, String::from_utf8(record.payload.to_vec()).unwrap());
    records.map(|record| text(record.unwrap())).collect()
}

#[test]
fn records_come_back_in_order_after_reopening_and_releasing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("wal");
    let mut wal = open(&root, 500).unwrap();
    let id = wal.id();
    assert_eq!((wal.first_seq(), wal.next_seq(), wal.durable_seq()), (1, 1, 0));
    let mut expected = Vec::new();
    for group in 0..10_u64 {
        let group: Vec<String> = (0..3).map(|i| format!("group {group} row {i}")).collect();
        let payloads: Vec<Payload> = group.iter().map(|text| payload(text)).collect();
        let appended = wal.append(&payloads).unwrap();
        assert_eq!(appended.first_seq, expected.len() as u64 + 1);
        expected.extend((appended.first_seq..).zip(group));
        assert_eq!(wal.next_seq(), appended.last_seq + 1);
        wal.sync().unwrap();
        assert_eq!(wal.durable_seq(), appended.last_seq);
    }
    assert!(wal.segment_count() > 3);
    assert_eq!(texts(wal.records(0)), expected);
    assert_eq!(texts(wal.records(17)), expected[17..]);
    let held = wal.bytes();
    drop(wal);

    let mut wal = open(&root, 500).unwrap();
    assert_eq!((wal.id(), wal.next_seq(), wal.durable_seq()), (id, 31, 30));
    assert_eq!((texts(wal.records(0)), wal.bytes()), (expected.clone(), held));
    let freed = wal.release(16).unwrap();
    assert_eq!(wal.bytes(), held - freed);
    assert!(wal.first_seq() > 1 && wal.first_seq() <= 17);
    assert_eq!(texts(wal.records(16)), expected[16..]);
    wal.rotate().unwrap();
    wal.release(30).unwrap();
    assert_eq!((wal.segment_count(), wal.first_seq(), wal.next_seq()), (1, 31, 31));
    drop(wal);

    let reading = read(os(), &root).unwrap();
    assert_eq!((reading.id(), reading.first_seq(), reading.last_seq()), (id, 31, 30));
    let mut wal = open(&root, 500).unwrap();
    assert_eq!(wal.append(&[payload("more")]).unwrap().first_seq, 31);
    wal.skip_to(100).unwrap();
    for bad in [99, u64::MAX] {
        assert_eq!(wal.skip_to(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(wal.append(&[payload("x"), payload("")]).unwrap().first_seq, 100);
    wal.sync().unwrap();
    drop(wal);
    let wal = open(&root, 500).unwrap();
    let expected = [(31, "more"), (100, "x"), (101, "")].map(|(seq, text)| (seq, text.to_owned()));
    assert_eq!(texts(wal.records(0)), expected);
    let report = inspect(&OsFileSystem, &root).unwrap();
    assert_eq!((report.segments.len(), report.next_seq), (2, 102));
}

#[test]
fn a_log_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1000).unwrap();
    let refused = open(dir.path(), 1000).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let me = format!("held by process {}", std::process::id());
    assert!(refused.to_string().contains(&me), "{refused}");
    let holder = is_locked(&OsFileSystem, dir.path()).unwrap().unwrap();
    assert_eq!(holder.pid, Some(std::process::id()));
    drop(wal);
    assert_eq!(is_locked(&OsFileSystem, dir.path()).unwrap(), None);
    open(dir.path(), 1000).unwrap();
}

#[test]
fn a_payload_over_the_limit_is_refused_on_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), 1000).unwrap();
    wal.append(&[payload("0123456789")]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let options = WalOptions::default().with_frame_bytes_max(9);
    let mut wal = Wal::open(os(), dir.path(), &Env::default(), options).unwrap();
    let refused = wal.append(&[payload("a"), payload("0123456789")]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert_eq!(wal.next_seq(), 2);
    let read = wal.records(0).next().unwrap().unwrap_err();
    assert_eq!(read.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_long_payload_crosses_windows() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), 100_000_000).unwrap();
    let long: Vec<u8> = (0..700_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let payloads = [payload("a"), Payload::from(Bytes::from(long.clone())), payload("b")];
    wal.append(&payloads).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let wal = open(dir.path(), 100_000_000).unwrap();
    let records: Result<Vec<Record>, Error> = wal.records(0).collect();
    let records = records.unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[1].payload, long);
}

#[test]
fn a_torn_tail_of_a_real_file_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), 1000).unwrap();
    wal.append(&[payload("kept")]).unwrap();
    wal.sync().unwrap();
    let bytes = wal.bytes();
    drop(wal);
    let path = dir.path().join("00000000000000000001.wal");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    let wal = open(dir.path(), 1000).unwrap();
    assert_eq!(texts(wal.records(0)), [(1, "kept".to_owned())]);
    assert_eq!((wal.bytes(), file.metadata().unwrap().len()), (bytes, bytes));
}

#[test]
fn room_is_made_for_small_groups_and_cut_off_before_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let length = |number: u64| {
        let path = dir.path().join(format!("{number:020}.wal"));
        std::fs::metadata(path).unwrap().len()
    };
    let options = WalOptions::default().with_reserve_bytes(8_000).with_segment_bytes(20_000);
    let mut wal = Wal::open(os(), dir.path(), &Env::default(), options).unwrap();
    let mut expected = Vec::new();
    let mut append = |wal: &mut Wal, text: String| {
        let appended = wal.append(&[payload(&text)]).unwrap();
        wal.sync().unwrap();
        expected.push((appended.last_seq, text));
    };
    append(&mut wal, "first".to_owned());
    let made = length(1);
    assert!(made > 8_000, "{made}");
    append(&mut wal, "second".to_owned());
    assert_eq!(length(1), made, "it lies within");
    // A large group goes over the room and beyond, and makes none.
    append(&mut wal, "x".repeat(9_000));
    assert_eq!(length(1), wal.bytes());
    append(&mut wal, "third".to_owned());
    assert!(length(1) > wal.bytes());
    let first = wal.bytes();
    wal.rotate().unwrap();
    assert_eq!(length(1), first);
    append(&mut wal, "fourth".to_owned());
    wal.trim().unwrap();
    assert_eq!(length(1) + length(2), wal.bytes());
    append(&mut wal, "fifth".to_owned());
    assert_eq!(texts(read(os(), dir.path()).unwrap().records(0, &WalOptions::default())), expected);
    drop(wal);
    let wal = open(dir.path(), 1000).unwrap();
    assert_eq!((texts(wal.records(0)), length(2)), (expected, wal.bytes() - first));
}

#[test]
fn opening_a_log_with_nothing_to_recover_takes_few_calls() {
    let fs = SimFileSystem::new();
    let calls = |work: &dyn Fn()| {
        let before = fs.calls();
        work();
        fs.calls() - before
    };
    let open = || crate::support::open(&fs, 1000).map(drop).unwrap();
    let (making, opening) = (calls(&open), calls(&open));
    assert!(making <= 18 && opening <= 18, "{making} and {opening} calls");
}

#[test]
fn what_is_no_log_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("absent")] {
        assert_eq!(read(os(), &path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(inspect(&OsFileSystem, &path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(is_locked(&OsFileSystem, &path).unwrap(), None);
    }
    let far = dir.path().join("a").join("b");
    assert_eq!(open(&far, 1).unwrap_err().kind(), ErrorKind::Unavailable);
}
