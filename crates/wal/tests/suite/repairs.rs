//! Repairs of logs that are damaged in other ways than in the middle.

use tidelog_core::ErrorKind;
use tidelog_testkit::SimFileSystem;
use tidelog_wal::{Error, Tail, inspect, repair};

use crate::script::{Driver, Step};
use crate::support::{Rows, bytes_of, open, payload_of, root, rows, segment, test_env};

const SEGMENT_BYTES: u64 = 1_000;

/// A log of six segments with one record each.
fn whole() -> (SimFileSystem, Rows) {
    let fs = SimFileSystem::new();
    let mut driver = Driver::new(fs.clone(), SEGMENT_BYTES);
    for _ in 0..6 {
        driver.run(&[Step::Append(vec![600]), Step::Sync]).unwrap();
    }
    driver.wal = None;
    (fs, driver.ledger.acked)
}

fn flip(fs: &SimFileSystem, path: &std::path::Path, offset: usize) {
    let mut bytes = fs.file(path).unwrap();
    bytes[offset] ^= 0x10;
    fs.put_file(path, bytes);
}

fn assert_refused(fs: &SimFileSystem) {
    assert!(matches!(open(fs, SEGMENT_BYTES), Err(Error::Damaged(_))));
}

/// Opens the log, which has just these records, and appends one with the number `next`.
fn assert_goes_on(fs: &SimFileSystem, records: &[(u64, Vec<u8>)], next: u64) {
    let mut wal = open(fs, SEGMENT_BYTES).unwrap();
    assert_eq!(rows(&wal).unwrap(), records);
    assert_eq!(wal.append(&[payload_of(9, 9)]).unwrap().first_seq, next);
    wal.sync().unwrap();
    drop(wal);
    let wal = open(fs, SEGMENT_BYTES).unwrap();
    let mut expected = records.to_vec();
    expected.push((next, bytes_of(9, 9)));
    assert_eq!(rows(&wal).unwrap(), expected);
}

#[test]
fn a_log_whose_first_header_is_lost_begins_anew_with_higher_numbers() {
    let (fs, _) = whole();
    flip(&fs, &segment(1), 3);
    assert_refused(&fs);
    let repaired = repair(&fs, root(), &test_env()).unwrap();
    assert_eq!((repaired.cut.len(), repaired.lost), (6, None));
    assert_goes_on(&fs, &[], 7);
}

#[test]
fn a_lost_id_comes_back_from_a_segment() {
    let (fs, acked) = whole();
    let id = open(&fs, SEGMENT_BYTES).unwrap().id();
    let path = root().join("wal.id");
    fs.take_file(&path);
    assert_refused(&fs);
    assert!(repair(&fs, root(), &test_env()).unwrap().id_restored);
    flip(&fs, &path, 12);
    assert_refused(&fs);
    let repaired = repair(&fs, root(), &test_env()).unwrap();
    assert!(repaired.id_restored && repaired.cut.len() == 1, "{repaired:?}");
    assert_eq!(open(&fs, SEGMENT_BYTES).unwrap().id(), id);
    assert_goes_on(&fs, &acked, 7);
}

#[test]
fn a_log_of_which_nothing_is_left_gets_another_id() {
    let (fs, _) = whole();
    let id = open(&fs, SEGMENT_BYTES).unwrap().id();
    (1..=6).for_each(|number| fs.take_file(&segment(number)));
    assert_refused(&fs);
    repair(&fs, root(), &test_env()).unwrap();
    let options = tidelog_wal::WalOptions::default();
    let env = tidelog_core::Env::default();
    let fs_shared = crate::support::shared(&fs);
    let wal = tidelog_wal::Wal::open(fs_shared, root(), &env, options).unwrap();
    assert_ne!(wal.id(), id);
}

#[test]
fn swapped_segments_are_put_aside_and_their_numbers_are_not_given_again() {
    let (fs, acked) = whole();
    let (third, sixth) = (fs.file(&segment(3)).unwrap(), fs.file(&segment(6)).unwrap());
    fs.put_file(&segment(3), sixth);
    fs.put_file(&segment(6), third);
    assert_refused(&fs);
    let repaired = repair(&fs, root(), &test_env()).unwrap();
    assert_eq!((repaired.cut.len(), repaired.lost), (4, Some((3, 6))));
    assert_goes_on(&fs, &acked[..2], 7);
}

#[test]
fn a_missing_segment_costs_what_follows_it() {
    let (fs, acked) = whole();
    fs.take_file(&segment(4));
    assert_refused(&fs);
    let repaired = repair(&fs, root(), &test_env()).unwrap();
    assert_eq!((repaired.cut.len(), repaired.lost), (2, Some((4, 6))));
    assert_goes_on(&fs, &acked[..3], 7);
}

#[test]
fn a_second_damage_and_repair_take_no_file_from_the_first() {
    let (fs, acked) = whole();
    flip(&fs, &segment(3), 100);
    let first = repair(&fs, root(), &test_env()).unwrap();
    assert_goes_on(&fs, &acked[..2], 7);
    flip(&fs, &segment(2), 100);
    assert_refused(&fs);
    let second = repair(&fs, root(), &test_env()).unwrap();
    assert_eq!(second.lost, Some((2, 7)));
    assert!(first.cut.iter().chain(&second.cut).all(|path| fs.file(path).is_some()));
    assert!(first.cut.iter().all(|path| !second.cut.contains(path)));
    assert_goes_on(&fs, &acked[..1], 8);
}

#[test]
fn what_needs_no_repair_is_left_alone() {
    let (fs, acked) = whole();
    let before = fs.files();
    assert_eq!(repair(&fs, root(), &test_env()).unwrap().damage, None);
    let mut torn = fs.file(&segment(6)).unwrap();
    torn.extend([0; 300]);
    fs.put_file(&segment(6), torn.clone());
    assert_eq!(inspect(&fs, root()).unwrap().tail, Tail::Clean, "room that was made for more");
    torn.extend([1; 300]);
    fs.put_file(&segment(6), torn);
    assert!(matches!(inspect(&fs, root()).unwrap().tail, Tail::Torn(_)));
    assert_eq!(repair(&fs, root(), &test_env()).unwrap().damage, None);
    assert_goes_on(&fs, &acked, 7);
    assert_eq!(before.len(), fs.files().len());

    let empty = SimFileSystem::new();
    let refused = repair(&empty, root(), &test_env()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let wal = open(&fs, SEGMENT_BYTES).unwrap();
    let refused = repair(&fs, root(), &test_env()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    drop(wal);
}
