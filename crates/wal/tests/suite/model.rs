//! Random runs of appends, syncs, releases, crashes and reopenings beside a plain list.

use proptest::collection::vec;
use proptest::prelude::*;
use tidelog_testkit::{SimEffect, SimFault, SimFileSystem};

use crate::script::{Driver, Step};
use crate::support::Shape;

#[derive(Debug, Clone)]
enum Action {
    Step(Step),
    /// The power is cut so many calls into a step, and what is left is drawn from a seed.
    PowerCut {
        step: Step,
        calls: u64,
        seed: u64,
    },
    /// One call fails within a step.
    Fault {
        step: Step,
        calls: u64,
        number: i32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(prop_oneof![0..40_usize, 0..3_000_usize], 0..5).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Rotate),
        2 => (0..8_u64).prop_map(Step::Release),
        1 => (1..4_u64).prop_map(Step::Skip),
        1 => Just(Step::Reopen),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => step().prop_map(Action::Step),
        2 => (step(), 0..12_u64, any::<u64>())
            .prop_map(|(step, calls, seed)| Action::PowerCut { step, calls, seed }),
        1 => (step(), 0..12_u64, prop_oneof![Just(5), Just(28)])
            .prop_map(|(step, calls, number)| Action::Fault { step, calls, number }),
    ]
}

/// Numbers from a seed.
fn chooser(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |of| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % of
    }
}

fn act(driver: &mut Driver, action: Action) {
    let fault = |driver: &Driver, calls, for_good, effect| {
        let at = driver.fs.calls() + calls;
        driver.fs.set_fault(Some(SimFault { at, for_good, effect }));
    };
    match action {
        Action::Step(step) => driver.step(&step).unwrap(),
        Action::PowerCut { step, calls, seed } => {
            fault(driver, calls, true, SimEffect::PowerOff);
            let _ = driver.step(&step);
            driver.wal = None;
            driver.fs = driver.fs.crash_with(&mut chooser(seed));
        }
        Action::Fault { step, calls, number } => {
            fault(driver, calls, false, SimEffect::Error(number));
            let _ = driver.step(&step);
            driver.fs.set_fault(None);
            if driver.wal.as_ref().is_some_and(tidelog_wal::Wal::has_failed) {
                driver.wal = None;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_is_a_list_that_survives(
        actions in vec(action(), 1..60),
        segment_bytes in prop_oneof![Just(1_u64), 200..4_000_u64, Just(1 << 20)],
        reserve_bytes in prop_oneof![Just(0_u64), 600..10_000_u64],
    ) {
        let shape = Shape { segment_bytes, reserve_bytes };
        let mut driver = Driver::new(SimFileSystem::new(), shape);
        for action in actions {
            act(&mut driver, action);
        }
        // Reopening compares the whole log with the list.
        driver.step(&Step::Reopen).unwrap();
    }
}
