//! Every call of a script fails, once and for good, with an I/O error and with a full disk.

use std::time::Instant;

use tidelog_core::ErrorKind;
use tidelog_testkit::{SimEffect, SimFault, SimFileSystem};
use tidelog_wal::{Error, Wal};

use crate::script::{Driver, Step, fixed};
use crate::support::{Shape, open, payload_of, rows};

const SEGMENT_BYTES: u64 = 1_500;
const RESERVING: Shape = Shape { segment_bytes: SEGMENT_BYTES, reserve_bytes: 1_000 };
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Steps that fail before the disk is mended.
const STEPS_BROKEN: usize = 4;

#[derive(Debug, Default)]
struct Counts {
    cases: usize,
    refused: usize,
    failed: usize,
    states: usize,
}

/// A log that has failed says so to everything.
fn assert_failed_for_good(wal: &mut Wal) {
    let durable = wal.durable_seq();
    for _ in 0..2 {
        let append = wal.append(&[payload_of(1, 1)]).unwrap_err();
        assert!(matches!(append, Error::Failed { .. }), "{append}");
        let sync = wal.sync().unwrap_err();
        let doubtful = wal.next_seq() > durable + 1;
        let expected = if doubtful { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
        assert!(sync.kind() == expected || sync.kind() == ErrorKind::OutcomeUnknown, "{sync}");
        wal.rotate().unwrap_err();
        wal.skip_to(wal.next_seq() + 1).unwrap_err();
        assert_eq!(wal.durable_seq(), durable);
    }
}

/// Goes through the script as the store does: what was refused is left out, and a log that has failed
/// is opened again once the disk is mended.
fn run(fault: SimFault, shape: Shape, counts: &mut Counts) -> Driver {
    let fs = SimFileSystem::new();
    fs.set_fault(Some(fault));
    let mut driver = Driver::new(fs.clone(), shape);
    let mut errors = 0;
    for step in fixed() {
        let Err(error) = driver.step(&step) else { continue };
        errors += 1;
        if let Some(wal) = driver.wal.as_mut().filter(|wal| wal.has_failed()) {
            counts.failed += 1;
            assert_failed_for_good(wal);
            check_crashes(&driver, counts);
            driver.wal = None;
        } else if !matches!(step, Step::Release(_) | Step::Reopen) {
            let wrong = !matches!(error, Error::NotApplied { .. } | Error::Io { .. });
            assert!(!wrong, "{step:?}: {error}");
            counts.refused += 1;
        }
        if errors >= STEPS_BROKEN {
            fs.set_fault(None);
        }
    }
    fs.set_fault(None);
    driver
}

/// What is acknowledged is there whatever a power cut leaves.
fn check_crashes(driver: &Driver, counts: &mut Counts) {
    for after in driver.fs.crash_states() {
        counts.states += 1;
        let wal = open(&after, driver.shape).unwrap();
        let checked = driver.ledger.check(&rows(&wal).unwrap(), wal.next_seq());
        checked.unwrap_or_else(|wrong| panic!("after a crash: {wrong}"));
    }
}

fn check(fault: SimFault, shape: Shape, counts: &mut Counts) {
    let mut driver = run(fault, shape, counts);
    counts.cases += 1;
    check_crashes(&driver, counts);
    // Opening checks what is there, and from then on that counts as acknowledged.
    driver.run(&[Step::Reopen]).unwrap();
    check_crashes(&driver, counts);
    driver.run(&[Step::Append(vec![40, 2_000]), Step::Sync, Step::Append(vec![3])]).unwrap();
    check_crashes(&driver, counts);
    driver.run(&[Step::Sync, Step::Reopen]).unwrap();
}

#[test]
fn no_failing_call_loses_what_was_acknowledged() {
    fail_each_call(SEGMENT_BYTES.into());
}

#[test]
fn nor_where_room_is_made_ahead() {
    fail_each_call(RESERVING);
}

fn fail_each_call(shape: Shape) {
    let started = Instant::now();
    let fs = SimFileSystem::new();
    Driver::new(fs.clone(), shape).run(&fixed()).unwrap();
    let mut counts = Counts::default();
    for at in 0..fs.calls() {
        for for_good in [false, true] {
            for number in [EIO, ENOSPC] {
                let fault = SimFault { at, for_good, effect: SimEffect::Error(number) };
                check(fault, shape, &mut counts);
            }
        }
    }
    println!("faults: {counts:?} in {:?}", started.elapsed());
    assert_eq!(counts.cases, 4 * usize::try_from(fs.calls()).unwrap());
    assert!(counts.refused > 100 && counts.failed > 50, "{counts:?}");
}

#[test]
fn a_full_disk_that_is_freed_takes_records_again() {
    let fs = SimFileSystem::new();
    let mut driver = Driver::new(fs.clone(), SEGMENT_BYTES);
    driver.run(&[Step::Append(vec![500]), Step::Sync]).unwrap();
    for lengths in [vec![600, 20], vec![5_000]] {
        // The write is the next call; for the long one, that of the new segment's file.
        let at = fs.calls();
        fs.set_fault(Some(SimFault { at, for_good: false, effect: SimEffect::Error(ENOSPC) }));
        let error = driver.step(&Step::Append(lengths.clone())).unwrap_err();
        assert!(matches!(error, Error::NotApplied { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        driver.run(&[Step::Append(lengths), Step::Sync]).unwrap();
    }
    driver.run(&[Step::Reopen]).unwrap();
    assert_eq!(driver.ledger.acked.len(), 4);
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let fs = SimFileSystem::new();
    let mut driver = Driver::new(fs.clone(), SEGMENT_BYTES);
    driver.run(&[Step::Append(vec![5]), Step::Sync, Step::Append(vec![6, 7])]).unwrap();
    let at = fs.calls();
    fs.set_fault(Some(SimFault { at, for_good: false, effect: SimEffect::Error(EIO) }));
    let error = driver.step(&Step::Sync).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { first: 2, last: 3, .. }), "{error}");
    let mut wal = driver.wal.take().unwrap();
    assert_failed_for_good(&mut wal);
    // What was written can still be read; it may be needed to write it elsewhere.
    assert_eq!(rows(&wal).unwrap().len(), 3);
}
