//! Every state that a power cut may leave, after every call of a script, and cut again while that is
//! recovered.

use std::time::Instant;

use tidelog_testkit::{SimEffect, SimFault, SimFileSystem};
use tidelog_wal::{Error, Tail, Wal, inspect, read, repair};

use crate::script::{Driver, Ledger, Step, fixed};
use crate::support::{
    Rows, Shape, bytes_of, open, payload_of, root, rows, segment, shared, test_env,
};

const SEGMENT_BYTES: u64 = 1_500;
const PLAIN: Shape = Shape { segment_bytes: SEGMENT_BYTES, reserve_bytes: 0 };
/// Room is made for groups of one short record.
const RESERVING: Shape = Shape { segment_bytes: SEGMENT_BYTES, reserve_bytes: 1_000 };

#[derive(Debug, Default)]
struct Counts {
    first: usize,
    second: usize,
}

fn power_off(at: u64) -> Option<SimFault> {
    Some(SimFault { at, for_good: true, effect: SimEffect::PowerOff })
}

/// Cuts the power before each call that `work` makes on a copy of `fs`, and hands over the disk as it
/// then is, with what `work` returns for it. Calls that changed nothing are passed over.
fn at_each_call<T>(
    fs: &SimFileSystem,
    mut work: impl FnMut(&SimFileSystem) -> (T, bool),
    mut check: impl FnMut(&SimFileSystem, T) -> Result<(), String>,
) -> Result<(), String> {
    let mut changes = None;
    for call in 0.. {
        let disk = fs.fork();
        disk.set_fault(power_off(fs.calls() + call));
        let (result, went_through) = work(&disk);
        disk.set_fault(None);
        if changes.replace(disk.changes()) != Some(disk.changes()) || went_through {
            check(&disk, result)?;
        }
        if went_through {
            return Ok(());
        }
    }
    Ok(())
}

/// Opens what a power cut has left, and checks it; then that the log goes on from there.
fn check_recovery(disk: &SimFileSystem, shape: Shape, ledger: &Ledger) -> Result<(), String> {
    let read_only = read(shared(disk), root()).map(|reading| reading.last_seq());
    let mut wal = open(disk, shape).map_err(|error| format!("does not open: {error}"))?;
    let found = rows(&wal).map_err(|error| error.to_string())?;
    ledger.check(&found, wal.next_seq())?;
    match read_only {
        Ok(last) if last + 1 == wal.next_seq() => {}
        Err(Error::NoLog { .. }) if wal.next_seq() == 1 => {}
        other => return Err(format!("read {other:?}, opened to {}", wal.next_seq())),
    }
    let mut expected = found;
    expected.push((wal.next_seq(), bytes_of(u64::MAX, 33)));
    let appended = wal.append(&[payload_of(u64::MAX, 33)]).and_then(|_| wal.sync());
    appended.map_err(|error| format!("does not go on: {error}"))?;
    drop(wal);
    let mut wal = reopen(disk, shape, &expected)?;
    // Nothing that was taken out of the log comes back when its oldest segments go.
    let released = wal.rotate().and_then(|()| wal.release(u64::MAX));
    released.map_err(|error| format!("does not release: {error}"))?;
    let next = wal.next_seq();
    drop(wal);
    let wal = reopen(disk, shape, &Rows::new())?;
    if wal.next_seq() == next { Ok(()) } else { Err("numbers that begin again".to_owned()) }
}

fn reopen(disk: &SimFileSystem, shape: Shape, expected: &Rows) -> Result<Wal, String> {
    let wal = open(disk, shape).map_err(|error| format!("again: {error}"))?;
    let found = rows(&wal).map_err(|error| error.to_string())?;
    if found == *expected { Ok(wal) } else { Err("another log when opened again".to_owned()) }
}

/// Cuts the power at each call of recovering `disk`, and after it.
fn check_second_crash(
    disk: &SimFileSystem,
    shape: Shape,
    ledger: &Ledger,
    counts: &mut Counts,
) -> Result<(), String> {
    let recover = |disk: &SimFileSystem| match open(disk, shape) {
        Ok(wal) => {
            let settled = rows(&wal).ok().map(|found| ledger.settled(found, wal.next_seq()));
            let done = settled.is_some();
            (settled, done)
        }
        Err(_) => (None, false),
    };
    at_each_call(disk, recover, |disk, settled| {
        for after in disk.crash_states() {
            counts.second += 1;
            // What an opened log has shown is there to stay.
            check_recovery(&after, shape, settled.as_ref().unwrap_or(ledger))?;
        }
        Ok(())
    })
}

fn check_script(fs: &SimFileSystem, shape: Shape, steps: &[Step]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let run = |disk: &SimFileSystem| {
        let mut driver = Driver::new(disk.clone(), shape);
        let went_through = driver.run(steps).is_ok();
        (driver.ledger.clone(), went_through)
    };
    at_each_call(fs, run, |disk, ledger| {
        for after in disk.crash_states() {
            check_second_crash(&after, shape, &ledger, &mut counts)?;
            counts.first += 1;
            check_recovery(&after, shape, &ledger)
                .map_err(|wrong| format!("{wrong}, in state {}", counts.first))?;
        }
        Ok(())
    })?;
    Ok(counts)
}

#[test]
fn what_is_acknowledged_survives_every_crash_and_a_second_one() {
    let started = Instant::now();
    for shape in [PLAIN, RESERVING] {
        let counts = check_script(&SimFileSystem::new(), shape, &fixed()).unwrap();
        println!("crashes: {shape:?} {counts:?} in {:?}", started.elapsed());
        assert!(counts.first > 800 && counts.second > 10_000, "{counts:?}");
    }
}

/// A test of the test.
#[test]
fn a_disk_that_ignores_syncs_is_caught() {
    let fs = SimFileSystem::new();
    fs.ignore_syncs();
    for shape in [PLAIN, RESERVING] {
        let wrong = check_script(&fs, shape, &fixed()).unwrap_err();
        assert!(wrong.contains("acknowledged") || wrong.contains("does not open"), "{wrong}");
    }
}

/// A log of four segments, the second of which has a flipped bit.
fn damaged() -> (SimFileSystem, Rows) {
    let fs = SimFileSystem::new();
    let mut driver = Driver::new(fs.clone(), SEGMENT_BYTES);
    for _ in 0..6 {
        driver.run(&[Step::Append(vec![400, 30]), Step::Sync]).unwrap();
    }
    driver.wal = None;
    let path = segment(2);
    let mut bytes = fs.file(&path).unwrap();
    // In the second group of the segment, so that its first records stay.
    bytes[80 + 64 + 400 + 64 + 30 + 70] ^= 4;
    fs.put_file(&path, bytes);
    (fs, driver.ledger.acked)
}

#[test]
fn a_repair_cuts_at_the_damage_and_gives_no_number_twice() {
    let (fs, acked) = damaged();
    let Tail::Damaged(damage) = inspect(&fs, root()).unwrap().tail else { panic!() };
    let kept = usize::try_from(damage.seq).unwrap() - 1;
    let before = fs.files();
    let repaired = repair(&fs, root(), &test_env()).unwrap();
    assert_eq!(repaired.lost, Some((damage.seq, acked.len() as u64)));
    assert_eq!(repaired.damage, Some(damage));
    let wal = open(&fs, SEGMENT_BYTES).unwrap();
    assert_eq!(rows(&wal).unwrap(), acked[..kept]);
    assert_eq!(wal.next_seq(), acked.len() as u64 + 1);
    drop(wal);
    // Nothing is thrown away: each file is there, or under its name put aside, or as two pieces.
    let after = fs.files();
    for (path, bytes) in before {
        let whole = after.values().any(|other| *other == bytes);
        let pieces = after.get(&path).and_then(|head| bytes.strip_prefix(head.as_slice()));
        let pieces = pieces.is_some_and(|tail| after.values().any(|other| other == tail));
        assert!(whole || pieces, "{}", path.display());
    }
    assert_eq!(repair(&fs, root(), &test_env()).unwrap().damage, None);
}

#[test]
fn a_repair_cut_short_leaves_the_damage_or_a_whole_log() {
    let (fs, acked) = damaged();
    let Tail::Damaged(damage) = inspect(&fs, root()).unwrap().tail else { panic!() };
    let kept = acked[..usize::try_from(damage.seq).unwrap() - 1].to_vec();
    let next_min = acked.len() as u64 + 1;
    let ledger = Ledger { acked: kept, next_min, ..Ledger::default() };
    let work = |disk: &SimFileSystem| ((), repair(disk, root(), &test_env()).is_ok());
    let mut counts = (0, 0, 0);
    at_each_call(&fs, work, |disk, ()| {
        for after in disk.crash_states() {
            counts.0 += 1;
            if let Err(Error::Damaged(_)) = open(&after, SEGMENT_BYTES) {
                counts.1 += 1;
                // A second repair, cut short as well.
                at_each_call(&after, work, |disk, ()| {
                    for after in disk.crash_states() {
                        counts.2 += 1;
                        repair(&after, root(), &test_env()).map_err(|error| error.to_string())?;
                        check_recovery(&after, PLAIN, &ledger)?;
                    }
                    Ok(())
                })?;
            } else {
                check_recovery(&after, PLAIN, &ledger)?;
            }
        }
        Ok(())
    })
    .unwrap();
    println!("repairs: {counts:?}");
    assert!(counts.0 > 20 && counts.1 > 5 && counts.2 > 100, "{counts:?}");
}
